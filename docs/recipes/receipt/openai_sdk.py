"""Prints the tokens of an answer, and where it came from."""

import os

import httpx
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key=os.environ["KEY"])
question = {"role": "user", "content": "What is the capital of France?"}
answer = client.chat.completions.create(model="smollm2", messages=[question])
print(answer.usage.total_tokens, "tokens")

messages = httpx.get(
    f"http://127.0.0.1:8080/api/v1/sessions/{answer.chatSessionId}/messages",
    headers={"Authorization": f"Bearer {os.environ['KEY']}"},
).json()["messages"]
for attempt in messages[-1]["receipt"]["attempts"]:
    print(attempt["model"], attempt["outcome"])
