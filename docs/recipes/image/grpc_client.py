"""Asks about an image."""

import os
from pathlib import Path

from parley_client import Client
from parley_client.v1.message_pb2 import ContentPart, ImageContent, Message

image = ImageContent(data=Path("photo.png").read_bytes(), mime_type="image/png")
question = Message(role="user", parts=[ContentPart(text="What is this?"), ContentPart(image=image)])
with Client("127.0.0.1:50051", key=os.environ["KEY"]) as client:
    print(client.chat.create([question], model="support").text)
