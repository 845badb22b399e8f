"""Parses log probabilities in OpenAI's JSON. They are optional data: malformed parts are omitted."""

import math
from collections.abc import Mapping
from typing import Any

from parley.backends.lenient_json import Source, repair_text
from parley.core.messages import extra_fields
from parley.v1.message_pb2 import Logprobs, TokenLogprob, TopLogprob

_UNLIKELY = -9999.0  # OpenAI's value for a negligible probability
_BYTE = range(256)
_KNOWN = frozenset({"content", "refusal"})
_KNOWN_OF_ALTERNATIVE = frozenset({"token", "logprob", "bytes"})
_KNOWN_OF_TOKEN = _KNOWN_OF_ALTERNATIVE | {"top_logprobs"}


def logprobs(data: Any, top: int, source: Source, *path: str | int) -> Logprobs | None:
    """Parses the log probabilities of a choice.

    Args:
        data: The parsed JSON of `logprobs`.
        top: Maximum number of alternatives for each token.
        source: The document that contains it, for the exact text of unknown fields.
        *path: Path of `logprobs` in the document.

    Returns:
        The log probabilities; None if there are none.
    """
    if not isinstance(data, dict):
        return None
    read = Logprobs(
        content=_tokens(data.get("content"), top, source, *path, "content"),
        refusal=_tokens(data.get("refusal"), top, source, *path, "refusal"),
    )
    if not data.keys() <= _KNOWN:
        _add_unknown(read, data, _KNOWN, source, *path)
    return read if read.ListFields() else None


def _tokens(data: Any, top: int, source: Source, *path: str | int) -> list[TokenLogprob]:
    if not isinstance(data, list):
        return []
    return [_token(item, top, source, *path, position) for position, item in enumerate(data) if isinstance(item, dict)]


def _token(data: Mapping[str, Any], top: int, source: Source, *path: str | int) -> TokenLogprob:
    """Parses a token and at most `top` alternatives; llama.cpp sends 20 regardless of the request."""
    alternatives = data.get("top_logprobs")
    token = TokenLogprob(token=_text(data), logprob=_logprob(data), bytes=_bytes(data))
    if top and isinstance(alternatives, list):
        for position, item in enumerate(alternatives[:top]):
            if isinstance(item, dict):
                read = token.top_logprobs.add(token=_text(item), logprob=_logprob(item), bytes=_bytes(item))
                if not item.keys() <= _KNOWN_OF_ALTERNATIVE:
                    _add_unknown(read, item, _KNOWN_OF_ALTERNATIVE, source, *path, "top_logprobs", position)
    if not data.keys() <= _KNOWN_OF_TOKEN:
        _add_unknown(token, data, _KNOWN_OF_TOKEN, source, *path)
    return token


def _add_unknown(
    read: Logprobs | TokenLogprob | TopLogprob,
    data: Mapping[str, Any],
    known: frozenset[str],
    source: Source,
    *path: str | int,
) -> None:
    if fields := source.unknown(data, known, *path):
        read.extra_json = extra_fields.dumps(fields)


def _text(data: Mapping[str, Any]) -> str:
    token = data.get("token")
    return repair_text(token) if isinstance(token, str) else ""


def _logprob(data: Mapping[str, Any]) -> float:
    value = data.get("logprob")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else _UNLIKELY  # type: ignore[arg-type]


def _bytes(data: Mapping[str, Any]) -> list[int] | None:
    value = data.get("bytes")
    if not isinstance(value, list):
        return None
    return value if all(isinstance(item, int) and item in _BYTE for item in value) else None
