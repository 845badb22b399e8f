"""Requests of sessions: the synchronous and the asynchronous client share them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from parley_client.requests import MessagesInput, conversation, fill
from parley_client.v1 import sessions_pb2

_IMPORT_BYTES = 4 << 20
"""The bytes after which an import goes on with another call; a message may have 8 MiB."""


def update_request(
    session_id: str, title: str | None, labels: Mapping[str, str | None] | None
) -> sessions_pb2.UpdateSessionRequest:
    """Returns the request that changes a session."""
    request = sessions_pb2.UpdateSessionRequest(session_id=session_id, title=title)
    if labels is not None:
        request.labels.update(dict(labels))
    return request


def add_request(
    session_id: str, messages: MessagesInput, model: str | None, metadata: Mapping[str, str] | None
) -> sessions_pb2.AddSessionMessagesRequest:
    """Returns the request that adds messages. Raises TypeError for a value that does not fit its field."""
    request = sessions_pb2.AddSessionMessagesRequest()
    fields = {"session_id": session_id, "messages": conversation(messages), "model": model, "metadata": metadata}
    fill(request, fields)
    return request


def import_requests(lines: Iterable[bytes]) -> Iterator[sessions_pb2.ImportSessionsRequest]:
    """Yields the requests of an import: each has complete sessions, of up to 4 MiB where there are several."""
    part = bytearray()
    session = bytearray()
    for line in lines:
        if session and _begins_session(line):
            if part and len(part) + len(session) > _IMPORT_BYTES:
                yield _import_request(part)
                part = bytearray()
            part += session
            session = bytearray()
        session += line.rstrip(b"\n") + b"\n"
    if part and len(part) + len(session) > _IMPORT_BYTES:
        yield _import_request(part)
        part = bytearray()
    if part or session:
        yield _import_request(part + session)


def _begins_session(line: bytes) -> bool:
    data: Any = json.loads(line) if line.strip() else {"role": ""}
    return isinstance(data, dict) and "role" not in data and "message" not in data


def _import_request(data: bytearray) -> sessions_pb2.ImportSessionsRequest:
    body = HttpBody(content_type="application/jsonl", data=bytes(data))
    return sessions_pb2.ImportSessionsRequest(body=body)
