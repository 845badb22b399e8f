"""Page tokens: the position of the next page as opaque text."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import orjson

from parley.core.errors import InvalidRequest

MAX_PAGE_BYTES = 7 * 1024 * 1024 // 4
"""The maximum bytes of the messages on a page with more than one.

gRPC clients accept 4 MiB by default, and over gRPC a page may have its texts in two fields (`content` and `text`).
"""
_MAX_TOKEN_LENGTH = 512
_END_INTEGER = 2**63


def encode(*sort_key: float | str) -> str:
    """Encodes the sort key of a page's last row as a token."""
    return urlsafe_b64encode(orjson.dumps(sort_key)).rstrip(b"=").decode()


def decode(token: str, *kinds: type) -> list[float | str]:
    """Decodes a token to a sort key with values of the types `kinds`. Raises InvalidRequest."""
    try:
        sort_key = orjson.loads(urlsafe_b64decode(_padded(token)))
    except ValueError:
        sort_key = None
    if not isinstance(sort_key, list) or list(map(type, sort_key)) != list(kinds) or not all(map(_storable, sort_key)):
        raise InvalidRequest("`page_token` must be the `next_page_token` of an earlier page", param="page_token")
    return sort_key


def after_turn(number: int) -> list[int]:
    """Returns the sort key behind all messages of a turn."""
    return [number, _END_INTEGER - 1]


def _padded(token: str) -> bytes:
    if len(token) > _MAX_TOKEN_LENGTH:
        raise ValueError
    return token.encode() + b"=" * (-len(token) % 4)


def _storable(value: float | str) -> bool:
    """Returns whether a database can compare with the value: integers have 64 bits, texts have no NUL character."""
    if isinstance(value, str):
        return "\0" not in value
    return not isinstance(value, int) or -_END_INTEGER <= value < _END_INTEGER
