"""The call's `Idempotency-Key`, and how an answer that is given again says so."""

from parley.core.errors import InvalidRequest
from parley.core.sessions.idempotency import Key
from parley.rpc.call import current

REPLAYED = ("idempotent-replayed", "true")
"""Metadata of an answer that was given before, to the same key."""

_KEY = "Idempotency-Key"
_MAX_KEY_LENGTH = 255


def idempotency_key(endpoint: str) -> Key | None:
    """Returns the key of this task's call for an endpoint, if it has one. Raises InvalidRequest."""
    text = current().metadata.get(_KEY.lower())
    if text is None:
        return None
    if not (1 <= len(text) <= _MAX_KEY_LENGTH and text.isascii() and text.isprintable()):
        raise InvalidRequest(f"`{_KEY}` must be 1 to {_MAX_KEY_LENGTH} printable ASCII characters", param=_KEY)
    return Key(endpoint, text)
