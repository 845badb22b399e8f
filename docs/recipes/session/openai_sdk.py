"""Asks two questions in one session; the second request has only the second question."""

import os

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key=os.environ["KEY"])
session = None
for text in ("What is the capital of France?", "And of Germany?"):
    question = {"role": "user", "content": text}
    named = {"chatSessionId": session} if session else {}
    answer = client.chat.completions.create(model="smollm2", messages=[question], extra_body=named)
    session = answer.chatSessionId
    print(answer.choices[0].message.content)
