"""Requests of the RPC tests, and the types of their fixtures."""

from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import ParseDict

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

Log = Callable[[str, int], list[dict[str, Any]]]
"""The fixture `log`."""

Metadata = tuple[tuple[str, str], ...]
"""The metadata of a call: keys and values."""


def chat_request(text: str = "Hi", **more: Any) -> CreateChatCompletionRequest:
    """Returns a request with one user message."""
    return ParseDict({"messages": [{"role": "user", "content": text}], **more}, CreateChatCompletionRequest())
