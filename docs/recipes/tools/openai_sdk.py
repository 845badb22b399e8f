"""Lets the model call a function, until it answers."""

import json
import os

from openai import OpenAI


def get_weather(city: str) -> dict:
    """Returns the weather of a city."""
    return {"city": city, "celsius": 21}


client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key=os.environ["KEY"])
parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
function = {"name": "get_weather", "description": "Returns the weather of a city.", "parameters": parameters}
messages = [{"role": "user", "content": "How warm is Paris?"}]
for _ in range(10):
    answer = client.chat.completions.create(
        model="support", messages=messages, tools=[{"type": "function", "function": function}]
    )
    message = answer.choices[0].message
    if not message.tool_calls:
        print(message.content)
        break
    messages.append(message)
    for call in message.tool_calls:
        result = get_weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})
