"""Prints an answer while it arrives."""

import os

from parley_client import Client

with (
    Client("127.0.0.1:50051", key=os.environ["KEY"]) as client,
    client.chat.stream("What is the capital of France?", model="smollm2") as stream,
):
    for text in stream.text():
        print(text, end="", flush=True)
print()
