"""The `Idempotency-Key` of a call, and the metadata of a replayed answer."""

from collections.abc import Mapping

from parley.core.errors import InvalidRequest
from parley.core.sessions.idempotency import Key

REPLAYED = ("idempotent-replayed", "true")
"""Metadata of an answer that is replayed from the store."""

_KEY = "Idempotency-Key"
_MAX_KEY_LENGTH = 255


def idempotency_key(metadata: Mapping[str, str], endpoint: str) -> Key | None:
    """Returns the key of a call, scoped to `endpoint`; None without a key.

    Raises:
        InvalidRequest: The key is empty, too long or not printable ASCII.
    """
    text = metadata.get(_KEY.lower())
    if text is None:
        return None
    if not (1 <= len(text) <= _MAX_KEY_LENGTH and text.isascii() and text.isprintable()):
        raise InvalidRequest(f"`{_KEY}` must be 1 to {_MAX_KEY_LENGTH} printable ASCII characters", param=_KEY)
    return Key(endpoint, text)
