"""Asks a question."""

import os

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key=os.environ["KEY"])
question = {"role": "user", "content": "What is the capital of France?"}
answer = client.chat.completions.create(model="smollm2", messages=[question])
print(answer.choices[0].message.content)
