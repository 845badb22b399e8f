"""Gets an answer as JSON with a schema."""

import json
import os

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key=os.environ["KEY"])
question = {"role": "user", "content": "What is the capital of France?"}
schema = {
    "type": "object",
    "properties": {"capital": {"type": "string", "maxLength": 20}},
    "required": ["capital"],
    "additionalProperties": False,
}
answer = client.chat.completions.create(
    model="smollm2",
    messages=[question],
    response_format={"type": "json_schema", "json_schema": {"name": "capital", "schema": schema, "strict": True}},
)
print(json.loads(answer.choices[0].message.content)["capital"])
