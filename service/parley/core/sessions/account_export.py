"""Export of an account as JSON Lines: for each session a line with its properties, then its messages."""

from array import array
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from parley.core.errors import SessionNotFound
from parley.core.messages.proto_json import dumps, from_message
from parley.core.ports import SessionFilter, SessionStore
from parley.core.sessions import export
from parley.core.sessions.access import find_key
from parley.v1.sessions_pb2 import Session

_PAGE_SIZE = 100
_BUCKETS = 1024
_SLACK_SECONDS = 60  # the greatest difference between the times at which a turn begins and at which readers see it


class _Exported:
    """The sessions that are exported: 8 bytes of memory for each. A hash of 64 bits stands for an id."""

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(_BUCKETS)]

    def add(self, session_id: str) -> bool:
        """Adds a session; returns whether it is new."""
        number = hash(session_id)  # of this process and of this run, so that no caller can choose equal ones
        bucket = self._buckets[number % _BUCKETS]
        if number in bucket:
            return False
        bucket.append(number)
        return True


async def lines(store: SessionStore, account: str, chosen: SessionFilter) -> AsyncGenerator[bytes, None]:
    """Yields the lines of the sessions that exist at the beginning, each session once.

    A session whose turn begins meanwhile, which moves it to the front of the list, is exported too. One that is deleted
    meanwhile may end after some of its messages.

    Args:
        store: The store.
        account: The account.
        chosen: Selects the sessions.
    """
    exported = _Exported()
    latest, _ = await store.list_sessions(account, chosen, page_size=1, page_token=None)
    began = latest[0].updated if latest else 0
    since = chosen.updated_after
    while True:  # first all, then those that have moved to the front meanwhile
        moved, front = False, began
        async with aclosing(_sessions(store, account, replace(chosen, updated_after=since))) as found:
            async for session in found:
                front = max(front, session.updated)
                if session.created > began or not exported.add(session.id):
                    continue
                moved = True
                async with aclosing(_session_lines(store, account, session)) as written:
                    async for line in written:
                        yield line
        if not moved:
            return
        since = max(front - _SLACK_SECONDS, chosen.updated_after or 0)


async def _sessions(store: SessionStore, account: str, chosen: SessionFilter) -> AsyncGenerator[Session, None]:
    """Yields sessions, the latest turn first, and reads them page by page."""
    token: str | None = None
    while True:
        page, token = await store.list_sessions(account, chosen, page_size=_PAGE_SIZE, page_token=token)
        for session in page:
            yield session
        if token is None:
            return


async def _session_lines(store: SessionStore, account: str, session: Session) -> AsyncGenerator[bytes, None]:
    yield dumps(from_message(session)) + b"\n"
    key = await find_key(store, account, session.id)
    try:
        async with aclosing(export.lines(store, account, key)) as found:
            async for line in found:
                yield line
    except SessionNotFound:
        return
