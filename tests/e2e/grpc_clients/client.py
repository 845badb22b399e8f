"""Calls Parley from Python with the code that grpc_tools generates from protos/. Prints JSON."""

import json
import os
import sys

import grpc

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.message_pb2 import ContentPart, ImageContent, Message

metadata = (("authorization", f"Bearer {os.environ['KEY']}"),)
image = ImageContent(data=b"\x89PNG", mime_type="image/png")
instruction = Message(role="system", text="Be brief.")
question = Message(role="user", parts=[ContentPart(text="Hello"), ContentPart(image=image)])
request = CreateChatCompletionRequest(model="scripted", messages=[instruction, question], stop_sequences=["END"])
with grpc.insecure_channel(os.environ["PARLEY_GRPC"]) as channel:
    chat = ChatCompletionsStub(channel)
    answer = chat.CreateChatCompletion(request, metadata=metadata, timeout=60)
    chunks = chat.StreamChatCompletion(request, metadata=metadata, timeout=60)
    streamed = "".join(choice.delta.content for chunk in chunks for choice in chunk.choices)
whole = answer.choices[0].message.text
json.dump({"whole": whole, "streamed": streamed, "total": answer.usage.total_tokens}, sys.stdout)
