"""Gets an answer as JSON with a schema."""

import json
import os

from parley_client import Client

schema = {
    "type": "object",
    "properties": {"capital": {"type": "string", "maxLength": 20}},
    "required": ["capital"],
    "additionalProperties": False,
}
form = {"type": "json_schema", "json_schema": {"name": "capital", "schema": schema, "strict": True}}
with Client("127.0.0.1:50051", key=os.environ["KEY"]) as client:
    answer = client.chat.create("What is the capital of France?", model="smollm2", response_format=form)
    print(json.loads(answer.text)["capital"])
