"""The fourth program of the client's README, with the generated stubs alone, and without its retries."""

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
    session = chat.CreateChatCompletion(request, metadata=metadata, timeout=600).session_id
    question = Message(role="user", text="And of Germany?")
    request = CreateChatCompletionRequest(model="smollm2", session_id=session, messages=[question])
    keyed = (*metadata, ("idempotency-key", f"{session}-2"))
    answers = [chat.CreateChatCompletion(request, metadata=keyed, timeout=600) for _ in range(2)]
    print([answer.choices[0].message.text for answer in answers])
