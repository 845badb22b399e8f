"""The store in one SQLite file, shared by all processes of the machine."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import TypeVar

import apsw

from parley.core.errors import StoreUnavailable
from parley.core.ports import (
    Charge,
    Claim,
    Reaped,
    Reservation,
    RunningCall,
    SessionFilter,
    Settlement,
    StorageLimits,
    Turn,
    Window,
)
from parley.core.ports.statistics import StoreStatistics
from parley.core.ports.turns import UNLIMITED_STORAGE
from parley.stores import paging
from parley.stores.purging import PURGE_SECONDS, PurgeCursor, purge_all, purge_session
from parley.stores.sqlite import claims, deletion, limits, reaper, sessions, turns
from parley.stores.sqlite.alerts import AlertMethods
from parley.stores.sqlite.cache import CacheMethods, reap_answers
from parley.stores.sqlite.changes import ChangeMethods
from parley.stores.sqlite.clock import FileClock, Times
from parley.stores.sqlite.database import Database, identify, queue_file, require_space
from parley.stores.sqlite.deferred import DeferredBegin, DeferredBegins
from parley.stores.sqlite.key_store import SqliteKeyStore
from parley.stores.sqlite.releases import LeaseWaiters
from parley.stores.sqlite.turn_methods import TurnMethods
from parley.stores.sqlite.usage import UsageMethods
from parley.stores.sqlite.writer import Counts, Writer
from parley.stores.sqlite.writer_queue import WriterQueue
from parley.v1.message_pb2 import Message
from parley.v1.sessions_pb2 import Session, SessionMessage

__all__ = ["SqliteStore"]

T = TypeVar("T")
_CHECK_SECONDS = 5.0  # between two write checks


class SqliteStore(TurnMethods, ChangeMethods, SqliteKeyStore, UsageMethods, AlertMethods, CacheMethods):
    """Implements `parley.core.ports.Store`. Every method also raises StoreUnavailable.

    One thread writes and one reads, so that the event loop never waits for the disk.
    """

    def __init__(  # noqa: PLR0913 - the last ones are for tests
        self,
        path: Path,
        clock: Callable[[], float] | None = None,
        uptime: Callable[[], float] | None = None,
        boot: str | None = None,
        *,
        allow_unavailable: bool = False,
        identity: str | None = None,
        purge_seconds: float = PURGE_SECONDS,
    ) -> None:
        """Opens the file, and creates it, its folder and its tables if necessary.

        Args:
            path: The file.
            clock: Replaces the wall clock (Unix seconds) in tests; see `parley.stores.sqlite.clock`.
            uptime: Replaces the machine's uptime (seconds) in tests.
            boot: Replaces the id of the machine's boot in tests.
            allow_unavailable: The file exists, or has existed: it is not created, and is opened once it is available.
            identity: The identity of the database, see `identity()`; another database is unavailable. None for any.
            purge_seconds: The seconds for which a deletion removes rows before it returns.

        Raises:
            StoreUnavailable: The file cannot be opened.
        """
        self._clock = FileClock(clock, uptime, boot)
        database, self._readable = (
            Database(path, allow_unavailable=allow_unavailable, identity=identity) for _ in range(2)
        )
        order = WriterQueue(queue_file(path), allow_unavailable=allow_unavailable)
        self._writer = Writer(database, order, self._clock.load)
        self._deferred = DeferredBegins(self._write_begin)
        self._path = path
        self._checked = -inf
        self._purge_seconds = purge_seconds
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="parley-store-reader")
        self._lease_waiters = LeaseWaiters()

    @property
    def counts(self) -> Counts:
        """The numbers of commits and of jobs in them."""
        return self._writer.counts

    @property
    def statistics(self) -> StoreStatistics:
        """The sizes and durations of the commits, and the durations of the reads."""
        return self._writer.statistics

    async def wait_for_release(self, session_id: str, seconds: float) -> None:
        """Returns at once if this process ends a turn of the session; polls for releases by other processes."""

        async def is_free() -> bool:
            return not await self._read(lambda db: sessions.lease_remaining(db, session_id, self._clock.lease_time(db)))

        await self._lease_waiters.wait(session_id, seconds, is_free)

    async def get_session(self, account: str, session_id: str) -> Session:
        """Reads one session. Raises SessionNotFound."""
        return await self._read(lambda db: sessions.find_session(db, account, session_id))

    async def list_sessions(
        self, account: str, chosen: SessionFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[Session], str | None]:
        """Reads a page, latest turn first. Raises InvalidRequest."""
        after = paging.decode(page_token, float, str) if page_token else []
        return await self._read(lambda db: sessions.list_sessions(db, account, chosen, page_size, after))

    async def list_messages(
        self, account: str, session_id: str, *, page_size: int, page_token: str | None, after_turn: int = 0
    ) -> tuple[list[SessionMessage], str | None]:
        """Reads a page, oldest first. Raises SessionNotFound, InvalidRequest."""
        after = paging.decode(page_token, int, int) if page_token else paging.after_turn(after_turn)
        return await self._read(lambda db: sessions.list_messages(db, account, session_id, page_size, after))

    async def latest_messages(self, account: str, session_id: str, count: int, max_bytes: int) -> list[Message]:
        """Reads the latest messages of completed turns, oldest first."""
        return await self._read(lambda db: sessions.latest_messages(db, account, session_id, count, max_bytes))

    async def history_tokens(self, account: str, session_id: str, window: Window) -> int:
        """Estimates the tokens of the next turn's history."""
        return await self._read(lambda db: sessions.history_tokens(db, account, session_id, window))

    async def fork_session(  # noqa: PLR0913, PLR0917 - the port's arguments
        self,
        account: str,
        session_id: str,
        new_id: str,
        through_turn: int | None,
        claim: Claim | None = None,
        storage: StorageLimits = UNLIMITED_STORAGE,
    ) -> Session:
        """Copies completed turns. Raises SessionNotFound, InvalidRequest, StorageLimitExceeded, TurnLost."""

        def job(db: apsw.Connection) -> Session:
            now = self._clock.wall()
            sessions.fork_session(db, account, session_id, new_id, through_turn, storage, now)
            fork = sessions.find_session(db, account, new_id)
            if claim is not None:
                claims.end_claim(db, claim, fork.SerializeToString(), new_id, now)
            return fork

        return await self._writer.submit(job)

    async def delete_session(
        self, account: str, session_id: str, claim: Claim | None = None, reply: bytes = b""
    ) -> None:
        """Deletes a session without a turn in progress. Raises SessionNotFound, SessionBusy, TurnLost."""

        def job(db: apsw.Connection) -> None:
            deletion.mark_deleted(db, account, session_id, self._clock.lease_time(db))
            if claim is not None:
                claims.end_claim(db, claim, reply, None, self._clock.wall())

        await self._writer.submit(job)
        with suppress(StoreUnavailable):  # the session is deleted; `purge` removes the rest
            await purge_session(lambda cursor: self._purge(session_id, cursor), time.monotonic() + self._purge_seconds)

    async def purge(self) -> bool:
        """Removes rows of deleted sessions in batches. Returns whether rows may remain."""

        async def find() -> str | None:
            return await self._read(deletion.find_deleted)

        return await purge_all(find, self._purge)

    async def reap(self, *, session_age: float | None, claim_age: float, limit: int) -> Reaped:
        """Clears what has expired, each kind in a job of its own, so that other jobs run between them."""
        submit, clock = self._writer.submit, self._clock
        crashed = await submit(lambda db: reaper.reap_crashed(db, clock.lease_time(db), limit))
        await submit(lambda db: limits.end_expired(db, self._times(db), limit))
        now = await submit(clock.retention_time)
        old = 0
        if session_age is not None:
            old = await submit(lambda db: deletion.mark_old(db, now - session_age, clock.lease_time(db), limit))
        claimed = await submit(
            lambda db: reaper.reap_claims(db, now - claim_age, clock.lease_time(db), limit), deletes=True
        )
        answers = await submit(lambda db: reap_answers(db, clock.lease_time(db), limit), deletes=True)
        return Reaped(crashed, old, claimed, answers)

    async def claim(self, account: str, method: str, key: str, digest: bytes, lease_seconds: float) -> Claim | bytes:
        """Claims a key, or returns its stored reply. Raises KeyInUse, KeyReused, ReplyDeleted."""

        def job(db: apsw.Connection) -> Claim | bytes:
            return claims.claim(db, (account, method, key), digest, self._times(db, lease_seconds))

        return await self._writer.submit(job)

    async def end_claim(self, claim: Claim, reply: bytes | None) -> None:
        """Stores the reply, or releases the key. Raises TurnLost."""
        await self._writer.submit(lambda db: claims.end_claim(db, claim, reply, None, self._clock.wall()))

    async def reserve(
        self, charges: Sequence[Charge], call: RunningCall | None = None, lease_seconds: float = 0.0
    ) -> Reservation:
        """Withdraws all charges, or none."""
        return await self._writer.submit(lambda db: limits.reserve(db, charges, call, self._times(db, lease_seconds)))

    async def settle(self, settlement: Settlement) -> None:
        """Ends a running call and applies the corrections."""
        await self._writer.submit(lambda db: limits.settle(db, settlement, self._times(db)))

    async def renew_calls(self, call_ids: Iterable[str], lease_seconds: float) -> None:
        """Extends the leases of running calls."""
        ids = list(call_ids)
        await self._writer.submit(lambda db: limits.renew(db, ids, self._clock.lease_time(db) + lease_seconds))

    async def wait_available(self) -> None:
        """Returns at once: a file that is missing or full has no standby that would replace it."""

    async def check(self) -> None:
        """Reads the file, checks the free space of its disk, and writes to the file every few seconds.

        Raises:
            StoreUnavailable: A check failed.
        """
        try:
            await self._read(lambda db: db.execute("SELECT 1 FROM sessions LIMIT 1").fetchall())
            await asyncio.get_running_loop().run_in_executor(self._reader, require_space, self._path)
        except StoreUnavailable:
            self._writer.is_failing = True
            raise
        if time.monotonic() - self._checked > _CHECK_SECONDS:
            await self._writer.submit(self._clock.touch)
            self._checked = time.monotonic()

    async def identity(self) -> str:
        """Returns the identity of the database, which its backups share. Writes one into an older file."""
        return await self._writer.submit(identify)

    async def close(self) -> None:
        """Completes pending writes, then closes the file."""
        await self._deferred.close()
        await self._writer.close()
        self._reader.shutdown()
        self._readable.close()

    async def _purge(self, session_id: str, cursor: PurgeCursor) -> PurgeCursor | None:
        def job(db: apsw.Connection) -> tuple[PurgeCursor | None]:
            return (deletion.purge_batch(db, session_id, cursor),)

        (next_cursor,) = await self._writer.submit(job, deletes=True)
        return next_cursor

    def _write_begin(self, deferred: DeferredBegin) -> asyncio.Future[Turn]:
        def job(db: apsw.Connection) -> Turn:
            times = self._times(db, deferred.lease_seconds)._replace(wall=deferred.wall)
            return turns.begin_turn(db, deferred.begin, deferred.sent, times)[0]

        return self._writer.submit(job)

    def _times(self, db: apsw.Connection, lease_seconds: float = 0.0) -> Times:
        return Times(self._clock.wall(), self._clock.lease_time(db), lease_seconds)

    async def _read(self, work: Callable[[apsw.Connection], T]) -> T:
        began = time.perf_counter()
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._reader, self._query, work)
        except RuntimeError as error:
            # The executor was shut down.
            raise StoreUnavailable("the store is closed") from error
        self.statistics.record_read(time.perf_counter() - began)
        return result

    def _query(self, work: Callable[[apsw.Connection], T]) -> T:
        with self._readable.use() as connection:
            return work(connection)
