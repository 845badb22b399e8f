"""Requests of the test suites that follow the API documents."""

import json
from typing import Any

from tests.processes import Parley

MESSAGES = [{"role": "user", "content": "Hi"}]


def send(
    stack: Parley, path: str, body: Any, headers: dict[str, str | None] | None = None, source: str | None = None
) -> tuple[int, bytes, Any]:
    """Sends a body with the headers of a valid request; `headers` overrides some of them (None: omitted)."""
    sent = {name: value for name, value in (stack.headers() | (headers or {})).items() if value is not None}
    with stack.connection(source) as connection:
        connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body), sent)
        response = connection.getresponse()
        return response.status, response.read(), response.headers


def send_fields(
    stack: Parley, path: str, fields: dict[str, Any], headers: dict[str, str | None] | None = None
) -> tuple[int, Any, Any]:
    """Sends a valid request with some fields changed (None: omitted); returns status, JSON and headers."""
    non_streaming = {"model": "scripted", "messages": MESSAGES, **fields}
    body = {name: value for name, value in non_streaming.items() if value is not None}
    status, data, answered = send(stack, path, body, headers)
    return status, json.loads(data), answered
