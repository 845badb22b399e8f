"""Export of a session as JSON Lines: one message per line, oldest first."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from parley.core.messages.proto_json import dumps, from_message
from parley.core.ports import SessionStore
from parley.v1.sessions_pb2 import SessionMessage

_PAGE_SIZE = 32  # messages in memory; a message may be as large as a request


async def messages(store: SessionStore, account: str, session_id: str) -> AsyncGenerator[SessionMessage, None]:
    """Yields the messages of a session, oldest first, and reads them page by page.

    Raises:
        SessionNotFound: The account has no such session, or it is deleted during the export.
        StoreUnavailable: The store cannot be reached.
    """
    token: str | None = None
    while True:
        page, token = await store.list_messages(account, session_id, page_size=_PAGE_SIZE, page_token=token)
        for message in page:
            yield message
        if token is None:
            return


async def lines(store: SessionStore, account: str, session_id: str) -> AsyncGenerator[bytes, None]:
    """Yields the lines of a session. Raises the errors of `messages`."""
    async with aclosing(messages(store, account, session_id)) as stored:
        async for message in stored:
            yield line(message)


TURN_FIELDS = frozenset(field.json_name for field in SessionMessage.DESCRIPTOR.fields) - {"message"}
"""The fields of a turn in each of its messages."""


def fields(message: SessionMessage) -> dict[str, Any]:
    """Returns a message as JSON data: its fields, then those of its turn.

    A message with an unknown field of the name of one of its turn's is in `message`.
    """
    turn: dict[str, Any] = from_message(message)
    if not TURN_FIELDS.isdisjoint(turn.get("message", ())):
        return turn
    return {**turn.pop("message", {}), **turn}


def line(message: SessionMessage) -> bytes:
    """Returns `{"role", "content", …, "turn", "state", …}` and a line feed."""
    return dumps(fields(message)) + b"\n"
