"""Asks two questions in one session; the second request has only the second question."""

import os

from parley_client import Client

with Client("127.0.0.1:50051", key=os.environ["KEY"]) as client:
    session = client.sessions.open(model="smollm2")
    for question in ("What is the capital of France?", "And of Germany?"):
        print(session.create(question).text)
