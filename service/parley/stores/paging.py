"""Page tokens: where the next page begins, as opaque text."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import orjson

from parley.core.errors import InvalidRequest

MAX_PAGE_BYTES = 3 * 1024 * 1024
"""Of messages on a page with more than one: gRPC's clients take 4 MiB by default."""
_MAX_TOKEN_LENGTH = 512
_END_INTEGER = 2**63


def encode(*place: float | str) -> str:
    """Makes a token of the last row's sort key."""
    return urlsafe_b64encode(orjson.dumps(place)).rstrip(b"=").decode()


def decode(token: str, *kinds: type) -> list[float | str]:
    """Reads a token back; `kinds` are the types that its key has. Raises InvalidRequest."""
    try:
        place = orjson.loads(urlsafe_b64decode(_padded(token)))
    except ValueError:
        place = None
    if not isinstance(place, list) or list(map(type, place)) != list(kinds) or not all(map(_storable, place)):
        raise InvalidRequest("`page_token` must be the `next_page_token` of an earlier page", param="page_token")
    return place


def _padded(token: str) -> bytes:
    if len(token) > _MAX_TOKEN_LENGTH:
        raise ValueError
    return token.encode() + b"=" * (-len(token) % 4)


def _storable(value: float | str) -> bool:
    """Tells whether a database can compare with this value: its whole numbers have 64 bits, its texts no zeros."""
    if isinstance(value, str):
        return "\0" not in value
    return not isinstance(value, int) or -_END_INTEGER <= value < _END_INTEGER
