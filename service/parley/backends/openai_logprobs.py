"""The probabilities of tokens, from OpenAI's JSON: a decoration, of which what cannot be read is left out."""

import math
from collections.abc import Mapping
from typing import Any

from parley.backends.vendor_json import whole
from parley.v1.message_pb2 import Logprobs, TokenLogprob, TopLogprob

_UNLIKELY = -9999.0  # how OpenAI writes a probability of next to nothing
_BYTE = range(256)


def logprobs(data: Any, top: int) -> Logprobs | None:
    """Reads the probabilities of tokens, with at most `top` rivals of each; None where there are none."""
    if not isinstance(data, dict):
        return None
    read = Logprobs(content=_tokens(data.get("content"), top), refusal=_tokens(data.get("refusal"), top))
    return read if read.content or read.refusal else None


def _tokens(data: Any, top: int) -> list[TokenLogprob]:
    if not isinstance(data, list):
        return []
    return [_token(item, top) for item in data if isinstance(item, dict)]


def _token(data: Mapping[str, Any], top: int) -> TokenLogprob:
    """Reads a token, and as many of its rivals as were asked for: llama.cpp sends 20 unasked."""
    rivals = data.get("top_logprobs")
    token = TokenLogprob(token=_text(data), logprob=_logprob(data), bytes=_bytes(data))
    if top and isinstance(rivals, list):
        token.top_logprobs.extend(
            TopLogprob(token=_text(rival), logprob=_logprob(rival), bytes=_bytes(rival))
            for rival in rivals[:top]
            if isinstance(rival, dict)
        )
    return token


def _text(data: Mapping[str, Any]) -> str:
    token = data.get("token")
    return whole(token) if isinstance(token, str) else ""


def _logprob(data: Mapping[str, Any]) -> float:
    value = data.get("logprob")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else _UNLIKELY  # type: ignore[arg-type]


def _bytes(data: Mapping[str, Any]) -> list[int] | None:
    value = data.get("bytes")
    if not isinstance(value, list):
        return None
    return value if all(isinstance(item, int) and item in _BYTE for item in value) else None
