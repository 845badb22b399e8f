"""Requests of the RPC tests, and the types of their fixtures."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

Log = Callable[[str, int], list[dict[str, Any]]]
"""The fixture `log`."""

Metadata = tuple[tuple[str, str], ...]
"""The metadata of a call: keys and values."""


def chat_request(text: str = "Hi", **more: Any) -> CreateChatCompletionRequest:
    """Returns a request with one user message."""
    return ParseDict({"messages": [{"role": "user", "content": text}], **more}, CreateChatCompletionRequest())


def with_key(metadata: Metadata, key: str) -> Metadata:
    """Returns the metadata of a call with an `Idempotency-Key`."""
    return (*metadata, ("idempotency-key", key))


def failure(method: Any, request: Any, metadata: Metadata) -> Any:
    """Returns the error with which a call ends."""
    with pytest.raises(grpc.RpcError) as caught:
        consume(method(request, metadata=metadata))
    return caught.value


def consume(answer: Any) -> None:
    """Reads a stream to its end."""
    if not isinstance(answer, Message):
        list(answer)


def is_replayed(call: Any) -> bool:
    """Returns whether the response is a replay."""
    return "true" == dict(call.initial_metadata()).get("idempotent-replayed")
