"""The part of the store that changes, indexes and imports sessions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from parley.core.offload import offload
from parley.core.ports import StorageLimits
from parley.core.ports.turns import UNLIMITED_STORAGE
from parley.stores import imports
from parley.stores.indexing import documents, index_all
from parley.stores.postgres import search, sessions
from parley.stores.postgres.pool import Pool
from parley.stores.postgres.rows import Now, require_valid_id
from parley.v1.sessions_pb2 import Session, SessionMessage


class _Store(Protocol):
    _clock: Callable[[], Now]
    _wall: Callable[[], float]
    _pool: Pool


class ChangeMethods:
    """Implements a part of `parley.core.ports.SessionStore`."""

    async def index_sessions(self: _Store, account: str) -> bool:
        """Indexes ended turns for about a second; returns whether all are indexed."""

        async def batch() -> bool:
            found = await self._pool.read(lambda db: search.read_unindexed(db, account, self._clock()))
            added = await documents(account, found.turns)
            await self._pool.run(lambda db: search.add(db, account, found, added))
            return found.is_last

        return await index_all(batch)

    async def update_session(
        self: _Store, account: str, session_id: str, title: str | None, labels: Mapping[str, str | None]
    ) -> Session:
        """Changes the title and the labels. Raises SessionNotFound, InvalidRequest."""
        require_valid_id(session_id)
        return await self._pool.run(lambda db: sessions.update_session(db, account, session_id, title, labels))

    async def import_session(
        self: _Store,
        account: str,
        session_id: str,
        session: Session,
        messages: Sequence[SessionMessage],
        storage: StorageLimits = UNLIMITED_STORAGE,
    ) -> bool:
        """Adds a session; returns whether its key was free. Raises InvalidRequest, StorageLimitExceeded."""
        imported = await offload(imports.rows, account, session_id, session, messages, self._wall())
        return await self._pool.run(lambda db: sessions.import_session(db, account, imported, storage))
