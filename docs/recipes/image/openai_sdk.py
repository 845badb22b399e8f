"""Asks about an image."""

import base64
import os
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key=os.environ["KEY"])
image = base64.b64encode(Path("photo.png").read_bytes()).decode()
question = {
    "role": "user",
    "content": [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ],
}
answer = client.chat.completions.create(model="support", messages=[question])
print(answer.choices[0].message.content)
