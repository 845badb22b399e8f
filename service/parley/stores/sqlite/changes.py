"""The part of the store that changes, indexes and imports sessions."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

import apsw

from parley.core.offload import offload
from parley.core.ports import StorageLimits
from parley.core.ports.turns import UNLIMITED_STORAGE
from parley.stores import imports
from parley.stores.indexing import documents, index_all, pieces
from parley.stores.sqlite import search, sessions
from parley.stores.sqlite.clock import FileClock
from parley.stores.sqlite.writer import Writer
from parley.v1.sessions_pb2 import Session, SessionMessage

T = TypeVar("T")


class _Store(Protocol):
    _clock: FileClock
    _writer: Writer

    def _read(self, work: Callable[[apsw.Connection], T]) -> Awaitable[T]: ...


class ChangeMethods:
    """Implements a part of `parley.core.ports.SessionStore`."""

    async def index_sessions(self: _Store, account: str) -> bool:
        """Indexes ended turns for about a second; returns whether all are indexed."""

        async def batch() -> bool:
            found = await self._read(lambda db: search.read_unindexed(db, account, self._clock.wall()))
            for piece in pieces(await documents(account, found.turns)):
                await self._writer.submit(partial(search.add, documents=piece))
            await self._writer.submit(lambda db: search.advance(db, account, found))
            return found.is_last

        return await index_all(batch)

    async def update_session(
        self: _Store, account: str, session_id: str, title: str | None, labels: Mapping[str, str | None]
    ) -> Session:
        """Changes the title and the labels. Raises SessionNotFound, InvalidRequest."""
        return await self._writer.submit(lambda db: sessions.update_session(db, account, session_id, title, labels))

    async def import_session(
        self: _Store,
        account: str,
        session_id: str,
        session: Session,
        messages: Sequence[SessionMessage],
        storage: StorageLimits = UNLIMITED_STORAGE,
    ) -> bool:
        """Adds a session; returns whether its key was free. Raises InvalidRequest, StorageLimitExceeded."""
        imported = await offload(imports.rows, account, session_id, session, messages, self._clock.wall())
        return await self._writer.submit(lambda db: sessions.import_session(db, account, imported, storage))
