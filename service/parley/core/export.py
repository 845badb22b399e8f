"""A whole session as JSON Lines: a message a line, oldest first."""

from collections.abc import AsyncGenerator

import orjson

from parley.core.plain import from_message
from parley.core.ports import SessionStore
from parley.v1.sessions_pb2 import SessionMessage

_AT_ONCE = 32  # messages in memory; one may be as large as a request


async def export(store: SessionStore, account: str, session_id: str) -> AsyncGenerator[bytes, None]:
    """Yields the lines of a session, each with its end, read page by page.

    Raises SessionNotFound, also where the session is deleted meanwhile, and StoreUnavailable.
    """
    token: str | None = None
    while True:
        page, token = await store.list_messages(account, session_id, page_size=_AT_ONCE, page_token=token)
        for message in page:
            yield line(message)
        if token is None:
            return


def line(kept: SessionMessage) -> bytes:
    """Returns `{"role", "content", …, "turn", "state", …}` and a line's end: the message's fields, and its turn's."""
    fields = from_message(kept)
    return orjson.dumps(fields.pop("message", {}) | fields) + b"\n"
