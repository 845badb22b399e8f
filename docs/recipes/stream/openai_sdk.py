"""Prints an answer while it arrives."""

import os

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key=os.environ["KEY"])
question = {"role": "user", "content": "What is the capital of France?"}
for chunk in client.chat.completions.create(model="smollm2", messages=[question], stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
