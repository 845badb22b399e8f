"""Asks a question."""

import os

from parley_client import Client

with Client("127.0.0.1:50051", key=os.environ["KEY"]) as client:
    print(client.chat.create("What is the capital of France?", model="smollm2").text)
