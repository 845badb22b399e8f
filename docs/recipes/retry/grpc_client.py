"""Streams an answer; the client itself asks again under the same key if the stream breaks, and goes on where it was."""

import os
import uuid

from parley_client import Client

key = str(uuid.uuid4())
with (
    Client("127.0.0.1:50051", key=os.environ["KEY"]) as client,
    client.chat.stream("What is the capital of France?", model="smollm2", idempotency_key=key) as stream,
):
    for text in stream.text():
        print(text, end="", flush=True)
print()
