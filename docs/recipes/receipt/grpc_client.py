"""Prints the tokens of an answer, and where it came from."""

import os

from parley_client import Client

with Client("127.0.0.1:50051", key=os.environ["KEY"]) as client:
    answer = client.chat.create("What is the capital of France?", model="smollm2")
    print(answer.usage.total_tokens, "tokens")
    for attempt in answer.receipt.attempts:
        print(attempt.model, attempt.outcome)
