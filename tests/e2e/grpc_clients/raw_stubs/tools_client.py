"""The second program of the client's README, with the generated stubs alone."""

import json
import os

import grpc

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.message_pb2 import FunctionDefinition, Message, Tool


def get_weather(city: str) -> dict[str, float]:
    """Returns the weather of a city."""
    return {"celsius": 21.0}


def to_fahrenheit(celsius: float) -> float:
    """Converts a temperature."""
    return celsius * 9 / 5 + 32


def tool(name: str, description: str, parameter: str, kind: str) -> Tool:
    """Returns the definition of a function with one parameter."""
    schema = {"type": "object", "properties": {parameter: {"type": kind}}, "required": [parameter]}
    definition = FunctionDefinition(name=name, description=description, parameters_json=json.dumps(schema))
    return Tool(function=definition)


tools = [
    tool("get_weather", "Returns the weather of a city.", "city", "string"),
    tool("to_fahrenheit", "Converts a temperature.", "celsius", "number"),
]
functions = {"get_weather": get_weather, "to_fahrenheit": to_fahrenheit}
metadata = (("authorization", f"Bearer {os.environ['KEY']}"),)
request = CreateChatCompletionRequest(model="support", tools=tools)
request.messages.add(role="user", text="How warm is Paris, in Fahrenheit?")
with grpc.insecure_channel("127.0.0.1:50051") as channel:
    chat = ChatCompletionsStub(channel)
    for _ in range(10):
        answer = chat.CreateChatCompletion(request, metadata=metadata, timeout=600)
        message = answer.choices[0].message
        if not message.tool_calls:
            break
        if answer.HasField("session_id"):
            request.session_id = answer.session_id
            del request.messages[:]
        else:
            request.messages.append(message)
        for call in message.tool_calls:
            arguments = json.loads(call.function.arguments)
            result = functions[call.function.name](**arguments)  # type: ignore[operator] # a dict of functions
            request.messages.append(Message(role="tool", tool_call_id=call.id, text=json.dumps(result)))
    print(message.text)
