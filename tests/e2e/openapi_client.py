"""Makes calls with the client that openapi-python-client has generated as the package `generated`. Prints JSON."""

import json
import os
from typing import Any

from generated import AuthenticatedClient
from generated.api.chat_completions import openai_create_chat_completion as create
from generated.api.sessions import chipp_list_sessions
from generated.models import CreateChatCompletionRequest, Message

client = AuthenticatedClient(base_url=os.environ["PARLEY_URL"], token=os.environ["OPENAI_API_KEY"])


def complete(model: str, **fields: Any) -> Any:
    """Sends a question; returns the answer as the client has parsed it."""
    body = CreateChatCompletionRequest.from_dict(
        {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}
    )
    assert isinstance(body.messages[0], Message)
    return create.sync(client=client, body=body)


PARAMETERS = {"type": "object", "properties": {"unit": {"type": "string"}, "city": {"type": "string"}}}
answer = complete(
    "scripted", tools=[{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}]
)
refused = complete("nobody")
listed = chipp_list_sessions.sync(client=client, page_size=1)
print(
    json.dumps(
        {
            "content": answer.choices[0].message.content,
            "finish_reason": answer.choices[0].finish_reason,
            "total": answer.usage.total_tokens,
            "refused": refused.to_dict(),
            "sessions": len(listed.sessions),
        }
    )
)
