"""Calls Parley from Python with the code that grpc_tools generates from protos/. Prints JSON."""

import json
import os
import sys

import grpc
from google.protobuf.struct_pb2 import Value

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.message_pb2 import Message

metadata = (("authorization", f"Bearer {os.environ['KEY']}"),)
question = Message(role="user", content=Value(string_value="Hello"))
request = CreateChatCompletionRequest(model="scripted", messages=[question])
with grpc.insecure_channel(os.environ["PARLEY_GRPC"]) as channel:
    chat = ChatCompletionsStub(channel)
    answer = chat.CreateChatCompletion(request, metadata=metadata, timeout=60)
    chunks = chat.StreamChatCompletion(request, metadata=metadata, timeout=60)
    streamed = "".join(choice.delta.content for chunk in chunks for choice in chunk.choices)
whole = answer.choices[0].message.content.string_value
json.dump({"whole": whole, "streamed": streamed, "total": answer.usage.total_tokens}, sys.stdout)
