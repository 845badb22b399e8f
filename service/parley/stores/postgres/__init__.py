"""The store in a PostgreSQL database, shared by any number of machines."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Self, TypeVar

import structlog

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
    TurnBegin,
    TurnEnd,
    Window,
)
from parley.core.ports.statistics import StoreStatistics
from parley.core.ports.turns import UNLIMITED_STORAGE
from parley.stores import paging
from parley.stores.postgres import claims, deletion, limits, reaper, schema, sessions
from parley.stores.postgres.alerts import AlertMethods
from parley.stores.postgres.batches import all_together, each_alone
from parley.stores.postgres.cache import CacheMethods, reap_answers
from parley.stores.postgres.changes import ChangeMethods
from parley.stores.postgres.claims import renew_claims
from parley.stores.postgres.database import Connection, Database, Timeouts, WrongSchema
from parley.stores.postgres.key_store import PostgresKeyStore
from parley.stores.postgres.pool import Pool
from parley.stores.postgres.releases import LeaseWaiters
from parley.stores.postgres.replication import warn_of_asynchronous_standbys
from parley.stores.postgres.rows import Now, require_valid_id
from parley.stores.postgres.targets import TargetMethods
from parley.stores.postgres.turns import Turns, renew_turns
from parley.stores.postgres.usage import UsageMethods
from parley.stores.purging import PURGE_SECONDS, PurgeCursor, purge_all, purge_session
from parley.v1.message_pb2 import Message
from parley.v1.sessions_pb2 import Session, SessionMessage

__all__ = ["PostgresStore", "Timeouts", "upgrade"]

T = TypeVar("T")
_TIMEOUTS = Timeouts()
_SKEW_SECONDS = 5.0
_CALL_BYTES = 16

_log = structlog.get_logger()


class PostgresStore(ChangeMethods, PostgresKeyStore, UsageMethods, AlertMethods, CacheMethods, TargetMethods):
    """Implements `parley.core.ports.Store`. Every method also raises StoreUnavailable.

    Leases, limits and ages are measured by the database's clock, which all replicas share.
    """

    def __init__(  # noqa: PLR0913 - see `open`
        self,
        url: str,
        size: int = 10,
        *,
        clock: Callable[[], float] | None = None,
        wall: Callable[[], float] | None = None,
        timeouts: Timeouts = _TIMEOUTS,
        pooled: bool = False,
        distributed: bool = False,
        purge_seconds: float = PURGE_SECONDS,
    ) -> None:
        """Creates a store that connects on first use. See `open` for the arguments."""
        self._purge_seconds = purge_seconds
        self._clock: Callable[[], Now] = clock or (lambda: None)
        self._wall = wall or clock or time.time
        self._skewed = False
        self._database = Database(url, timeouts, pooled=pooled)
        self.statistics = StoreStatistics()
        self._pool = Pool(self._database, size, self.statistics)
        self._lease_waiters = LeaseWaiters(self._database, self._pool, self._clock)
        self._turns = Turns(self._pool, self._clock, self.statistics, distributed=distributed)
        self._together: Callable[[Iterable[T]], Sequence[Sequence[T]]] = each_alone if distributed else all_together

    @classmethod
    async def open(  # noqa: PLR0913 - the first two are the configuration's, the others for tests
        cls,
        url: str,
        size: int = 10,
        *,
        clock: Callable[[], float] | None = None,
        wall: Callable[[], float] | None = None,
        timeouts: Timeouts = _TIMEOUTS,
        pooled: bool = False,
        distributed: bool = False,
        allow_unavailable: bool = False,
        identity: str | None = None,
        purge_seconds: float = PURGE_SECONDS,
    ) -> Self:
        """Opens a store, creates its schema if the database is new, and checks the schema's version.

        Args:
            url: The URL of the database.
            size: The maximum number of connections, in addition to one that listens.
            clock: Replaces the database's clock (Unix seconds) in tests.
            wall: Replaces this process's wall clock (Unix seconds) in tests.
            timeouts: The timeouts of the server.
            pooled: Whether a pooler in transaction mode is in front of the server; see `Database`.
            distributed: Whether the sessions are in several shards: each statement of a turn is for one of them.
            allow_unavailable: Opens the store even if the server is unreachable or has lost the schema, and creates
                nothing; it connects once the server and the schema are available.
            identity: The identity of the tables that existed before, see `identity()`; None for a new database.
            purge_seconds: The seconds for which a deletion removes rows before it returns.

        Raises:
            StoreUnavailable: The server is unreachable, or its schema cannot be used.
        """
        store = cls(
            url,
            size,
            clock=clock,
            wall=wall,
            timeouts=timeouts,
            pooled=pooled,
            distributed=distributed,
            purge_seconds=purge_seconds,
        )
        store._database.expect(identity, is_constant=allow_unavailable)
        try:
            await (schema.check if allow_unavailable else schema.ensure)(store._database)
        except StoreUnavailable as error:
            if not allow_unavailable or isinstance(error, WrongSchema):
                raise
            store._pool.start_lease_grace()
            return store
        if allow_unavailable:  # set for a service, which acknowledges turns, and not for a command
            await warn_of_asynchronous_standbys(store._database)
        return store

    async def begin_turn(self, begin: TurnBegin, lease_seconds: float) -> Turn:
        """Leases the session and adds the turn. Raises SessionNotFound, SessionBusy, InvalidRequest."""
        require_valid_id(begin.session_id)
        return await self._turns.begin(begin, lease_seconds)

    def defer_turn(self, begin: TurnBegin, lease_seconds: float) -> Turn | None:
        """Defers no turn: other replicas see every turn that runs."""

    def end_turn(self, turn: Turn, end: TurnEnd) -> asyncio.Future[None]:
        """Starts to end the turn, its lease and its claim. Raises TurnLost."""
        return asyncio.get_running_loop().create_task(self._turns.end(turn, end))

    async def renew_leases(self, turns: Iterable[Turn], claims: Iterable[Claim], lease_seconds: float) -> None:
        """Extends the leases that are still held."""
        held, keys_held = self._together(turns), self._together(claims)

        async def work(db: Connection) -> None:
            for some_turns in held:
                await renew_turns(db, some_turns, self._clock(), lease_seconds)
            for some_claims in keys_held:
                await renew_claims(db, some_claims, self._clock(), lease_seconds)

        if held or keys_held:
            await self._pool.run(work, work)

    async def wait_for_release(self, session_id: str, seconds: float) -> None:
        """Waits for the database's notification that the session is free."""
        require_valid_id(session_id)
        await self._lease_waiters.wait(session_id, seconds)

    async def get_session(self, account: str, session_id: str) -> Session:
        """Reads one session. Raises SessionNotFound."""
        require_valid_id(session_id)
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
        require_valid_id(session_id)
        after = paging.decode(page_token, int, int) if page_token else paging.after_turn(after_turn)
        return await self._read(lambda db: sessions.list_messages(db, account, session_id, page_size, after))

    async def latest_messages(self, account: str, session_id: str, count: int, max_bytes: int) -> list[Message]:
        """Reads the latest messages of completed turns, oldest first."""
        if "\0" in session_id:
            return []
        return await self._read(lambda db: sessions.latest_messages(db, account, session_id, count, max_bytes))

    async def history_tokens(self, account: str, session_id: str, window: Window) -> int:
        """Estimates the tokens of the next turn's history."""
        require_valid_id(session_id)
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
        require_valid_id(session_id)
        return await self._pool.run(
            lambda db: sessions.fork_session(
                db, account, session_id, new_id, through_turn, self._clock(), claim, storage
            )
        )

    async def delete_session(
        self, account: str, session_id: str, claim: Claim | None = None, reply: bytes = b""
    ) -> None:
        """Deletes a session without a turn in progress. Raises SessionNotFound, SessionBusy, TurnLost."""
        require_valid_id(session_id)
        self._turns.forget(session_id)

        async def work(db: Connection) -> None:
            grace = self._pool.lease_grace()
            await deletion.mark_deleted(db, account, session_id, self._clock(), grace, claim, reply)

        await self._pool.run(work)
        with suppress(StoreUnavailable):  # the session is deleted; `purge` removes the rest
            await purge_session(lambda cursor: self._purge(session_id, cursor), time.monotonic() + self._purge_seconds)

    async def purge(self) -> bool:
        """Removes rows of deleted sessions in batches. Returns whether rows may remain."""
        return await purge_all(lambda: self._pool.run(deletion.find_deleted), self._purge)

    async def reap(self, *, session_age: float | None, claim_age: float, limit: int) -> Reaped:
        """Clears what has expired, each kind in a transaction of its own.

        Deletes nothing by age while the clocks of this process and the database differ, because one of them is wrong.
        Ends no lease for a time after an outage: its holder may run, and have been unable to renew it.
        """
        crashed = await self._end_expired(lambda db: reaper.reap_crashed(db, self._clock(), limit))
        await self._end_expired(lambda db: limits.end_expired(db, self._clock(), limit))
        if not await self._clocks_agree():
            return Reaped(crashed)
        old = 0
        if session_age is not None:
            old = await self._pool.run(lambda db: deletion.mark_old(db, session_age, self._clock(), limit))
        claimed = await self._pool.run(lambda db: reaper.reap_claims(db, claim_age, self._clock(), limit))
        answers = await self._pool.run(lambda db: reap_answers(db, self._clock(), limit))
        return Reaped(crashed, old, claimed, answers)

    async def claim(self, account: str, method: str, key: str, digest: bytes, lease_seconds: float) -> Claim | bytes:
        """Claims a key, or returns its stored reply. Raises KeyInUse, KeyReused, ReplyDeleted."""
        call = secrets.token_bytes(_CALL_BYTES)

        async def work(db: Connection) -> Claim | bytes:
            grace = self._pool.lease_grace()
            return await claims.claim(db, account, method, key, digest, self._clock(), lease_seconds, call, grace)

        return await self._pool.run(work, work)

    async def end_claim(self, claim: Claim, reply: bytes | None) -> None:
        """Stores the reply, or releases the key. Raises TurnLost."""
        await self._pool.run(lambda db: claims.end_claim(db, claim, reply, self._clock()))

    async def reserve(
        self, charges: Sequence[Charge], call: RunningCall | None = None, lease_seconds: float = 0.0
    ) -> Reservation:
        """Withdraws all charges, or none."""
        return await self._pool.run(lambda db: limits.reserve(db, charges, call, self._clock(), lease_seconds))

    async def settle(self, settlement: Settlement) -> None:
        """Ends a running call and applies the corrections."""
        await self._pool.run(lambda db: limits.settle(db, settlement, self._clock()))

    async def renew_calls(self, call_ids: Iterable[str], lease_seconds: float) -> None:
        """Extends the leases of running calls."""
        ids = list(call_ids)

        async def work(db: Connection) -> None:
            await limits.renew(db, ids, self._clock(), lease_seconds)

        await self._pool.run(work, work)

    async def check(self) -> None:
        """Checks that the server is available, with a write every few seconds. Raises StoreUnavailable."""
        await self._pool.check()

    async def wait_available(self) -> None:
        """Waits until the server completes writes, for up to `Timeouts.wait`. Raises StoreUnavailable."""
        await self._pool.wait_available()

    async def identity(self) -> str:
        """Returns the identity of the tables, which backups and standbys share."""
        return await self._read(schema.identity)

    async def close(self) -> None:
        """Completes pending writes, then closes the connections."""
        await self._lease_waiters.close()
        await self._pool.close()

    async def clock_difference(self) -> float:
        """Returns by how many seconds this process's wall clock is ahead, at least, of the database's.

        It is 0 if the database's time is between the beginning and the end of the call.
        """
        before = self._wall()
        database_time = await self._read(lambda db: reaper.database_time(db, self._clock()))
        return max(before - database_time, 0.0) or min(self._wall() - database_time, 0.0)

    async def _clocks_agree(self) -> bool:
        """Compares this process's wall clock with the database's, and logs the start of a difference."""
        ahead = await self.clock_difference()
        differs = abs(ahead) >= _SKEW_SECONDS
        if differs and not self._skewed:
            _log.error(
                "this machine's clock differs from the database's: this process deletes nothing by age; "
                "synchronize the clocks by NTP",
                seconds=round(ahead, 1),
            )
        self._skewed = differs
        return not differs

    async def _end_expired(self, end: Callable[[Connection], Awaitable[int]]) -> int:
        """Ends expired leases unless their holders may still renew them; returns their number."""

        async def work(db: Connection) -> int:
            # Here and not before, because an outage may end while the call waits for a connection.
            return 0 if self._pool.lease_grace() else await end(db)

        return await self._pool.run(work, waits=False)

    async def _purge(self, session_id: str, cursor: PurgeCursor) -> PurgeCursor | None:
        return await self._pool.run(lambda db: deletion.purge_batch(db, session_id, cursor))

    async def _read(self, work: Callable[[Connection], Awaitable[T]], *, is_lookup: bool = False) -> T:
        began = time.perf_counter()
        result = await self._pool.read(work, is_lookup=is_lookup)
        self.statistics.record_read(time.perf_counter() - began)
        return result


async def upgrade(url: str, *, pooled: bool = False) -> tuple[int, int]:
    """Applies pending migrations and returns the schema versions before and after. Raises StoreUnavailable."""
    return await schema.upgrade(Database(url, _TIMEOUTS, pooled=pooled))
