"""Streams an answer, and asks again under the same key if the stream breaks."""

import os
import time
import uuid

import httpx
from openai import APIError, OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key=os.environ["KEY"])
question = {"role": "user", "content": "What is the capital of France?"}
key = {"Idempotency-Key": str(uuid.uuid4())}


def ask() -> str:
    """Returns the whole answer; a program with a display shows the parts, and clears them before it asks again."""
    chunks = client.chat.completions.create(model="smollm2", messages=[question], stream=True, extra_headers=key)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


for attempt in range(5):
    try:
        print(ask())
        break
    except (APIError, httpx.TransportError):
        if attempt == 4:
            raise
        time.sleep(2**attempt)
