"""The third program of the client's README, with the generated stubs alone: text only, without tool calls or events."""

import os
import time
import uuid

import grpc

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.message_pb2 import Message
from parley.v1.receipt_pb2 import Receipt

RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL}
metadata = (("authorization", f"Bearer {os.environ['KEY']}"), ("idempotency-key", uuid.uuid4().hex))
question = Message(role="user", text="What is the capital of France?")
request = CreateChatCompletionRequest(model="smollm2", messages=[question])
with grpc.insecure_channel("127.0.0.1:50051") as channel:
    chat = ChatCompletionsStub(channel)
    printed, tokens = "", 0
    for attempt in range(5):
        text = ""
        stream = chat.StreamChatCompletion(request, metadata=metadata, timeout=600)
        try:
            for chunk in stream:
                text += "".join(choice.delta.content for choice in chunk.choices)
                if not (text.startswith(printed) or printed.startswith(text)):
                    raise RuntimeError("the repeated answer differs")
                print(text[len(printed) :], end="", flush=True)
                printed = max(printed, text, key=len)
                tokens = chunk.usage.total_tokens or tokens
            break
        except grpc.RpcError:
            if stream.code() not in RETRYABLE:
                raise
            trailing = dict(stream.trailing_metadata() or ())
            time.sleep(float(trailing.get("retry-after", 0.5 * 2**attempt)))
    trailing = dict(stream.trailing_metadata() or ())
    limits = {name: value for name, value in stream.initial_metadata() if name.startswith("x-ratelimit-")}
    receipt = Receipt.FromString(trailing["parley-receipt-bin"])  # type: ignore[arg-type] # bytes by its name
    print(tokens, receipt.attempts[0].outcome, limits or None)
