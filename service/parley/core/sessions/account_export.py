"""Export of an account as JSON Lines: for each session a line with its properties, then its messages."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from parley.core.errors import SessionNotFound
from parley.core.messages.proto_json import dumps, from_message
from parley.core.ports import SessionFilter, SessionStore
from parley.core.sessions import export
from parley.core.sessions.access import find_key
from parley.v1.sessions_pb2 import Session

_PAGE_SIZE = 1000


async def lines(store: SessionStore, account: str, chosen: SessionFilter) -> AsyncGenerator[bytes, None]:
    """Yields the lines of all sessions, each session once.

    A session whose turn begins meanwhile, which moves it to the front of the list, is exported too. One that is deleted
    meanwhile may end after some of its messages.

    Args:
        store: The store.
        account: The account.
        chosen: Selects the sessions.
    """
    seen: set[str] = set()
    remaining = await _listed(store, account, chosen, seen)
    while remaining:
        latest = max(session.updated for session in remaining)
        for session in remaining:
            async with aclosing(_session_lines(store, account, session)) as found:
                async for line in found:
                    yield line
        remaining = await _listed(store, account, replace(chosen, updated_after=latest), seen)


async def _listed(store: SessionStore, account: str, chosen: SessionFilter, seen: set[str]) -> list[Session]:
    """Returns the sessions that are not seen yet, and adds them to `seen`."""
    found: list[Session] = []
    token: str | None = None
    while True:
        page, token = await store.list_sessions(account, chosen, page_size=_PAGE_SIZE, page_token=token)
        found += [session for session in page if session.id not in seen]
        seen.update(session.id for session in page)
        if token is None:
            return found


async def _session_lines(store: SessionStore, account: str, session: Session) -> AsyncGenerator[bytes, None]:
    yield dumps(from_message(session)) + b"\n"
    key = await find_key(store, account, session.id)
    try:
        async with aclosing(export.lines(store, account, key)) as found:
            async for line in found:
                yield line
    except SessionNotFound:
        return
