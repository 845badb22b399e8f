"""The first program of the client's README, with the generated stubs alone."""

import os

import grpc

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.message_pb2 import Message

metadata = (("authorization", f"Bearer {os.environ['KEY']}"),)
with grpc.insecure_channel("127.0.0.1:50051") as channel:
    chat = ChatCompletionsStub(channel)
    question = Message(role="user", text="What is the capital of France?")
    request = CreateChatCompletionRequest(model="smollm2", messages=[question])
    answer = chat.CreateChatCompletion(request, metadata=metadata, timeout=600)
    print(answer.choices[0].message.text, answer.usage.total_tokens)
