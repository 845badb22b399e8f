"""Sessions, keys and limits in one SQLite file, shared by every process on the machine."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import apsw

from parley.core.errors import StoreUnavailable
from parley.core.ports import ApiKey, Charge, Reservation, Turn, TurnBegin
from parley.stores import paging
from parley.stores.sqlite import keys, limits, sessions
from parley.stores.sqlite.database import Database
from parley.stores.sqlite.writer import Counts, Writer
from parley.v1.message_pb2 import Message
from parley.v1.sessions_pb2 import Session, SessionMessage

__all__ = ["SqliteStore"]

T = TypeVar("T")


class SqliteStore:
    """Implements `parley.core.ports.Store`. Every method also raises StoreUnavailable.

    A thread writes and a thread reads, so that the event loop never waits for the disk. `clock` gives Unix seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Opens the file; makes it, its folder and its tables if need be. Raises StoreUnavailable."""
        self._clock = clock
        self._writer = Writer(Database(path), path.with_name(f"{path.name}-queue"))
        self._readable = Database(path)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="parley-store-reader")

    @property
    def counts(self) -> Counts:
        """Tells how many jobs went into how many commits."""
        return self._writer.counts

    async def begin_turn(self, begin: TurnBegin, lease_seconds: float) -> Turn:
        """Leases the session and adds the turn. Raises SessionNotFound, SessionBusy.

        A caller that is cancelled meanwhile leaves no lease behind: the turn becomes `incomplete(cancelled)`.
        """
        messages = _serialized(begin.messages)
        turn, history = await self._writer.submit(
            lambda db: sessions.begin_turn(db, begin, messages, self._clock(), lease_seconds), self._cancel
        )
        turn.history = [Message.FromString(message) for message in history]
        return turn

    async def commit_turn(self, turn: Turn, answer: Sequence[Message]) -> None:
        """Completes the turn. Raises TurnLost."""
        await self._end(turn, "completed", None, answer)

    async def abandon_turn(self, turn: Turn, reason: str, answer: Sequence[Message]) -> None:
        """Ends the turn as incomplete. Raises TurnLost."""
        await self._end(turn, "incomplete", reason, answer)

    async def renew_leases(self, turns: Iterable[Turn], lease_seconds: float) -> None:
        """Extends the leases that are not lost, in one transaction."""
        if renewed := list(turns):
            await self._writer.submit(lambda db: sessions.renew_leases(db, renewed, self._clock() + lease_seconds))

    async def get_session(self, account: str, session_id: str) -> Session:
        """Reads one session. Raises SessionNotFound."""
        return await self._read(lambda db: sessions.find_session(db, account, session_id))

    async def list_sessions(
        self, account: str, *, model: str | None, page_size: int, page_token: str | None
    ) -> tuple[list[Session], str | None]:
        """Reads a page, the latest turn first. Raises InvalidRequest."""
        after = paging.decode(page_token, float, str) if page_token else []
        return await self._read(lambda db: sessions.list_sessions(db, account, model, page_size, after))

    async def list_messages(
        self, account: str, session_id: str, *, page_size: int, page_token: str | None
    ) -> tuple[list[SessionMessage], str | None]:
        """Reads a page, the oldest first. Raises SessionNotFound, InvalidRequest."""
        after = paging.decode(page_token, int, int) if page_token else []
        return await self._read(lambda db: sessions.list_messages(db, account, session_id, page_size, after))

    async def delete_session(self, account: str, session_id: str) -> None:
        """Deletes a session that has no turn in progress. Raises SessionNotFound, SessionBusy."""
        await self._writer.submit(lambda db: sessions.delete_session(db, account, session_id, self._clock()))

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Reads the key with this digest."""
        return await self._read(lambda db: keys.find_key(db, digest))

    async def add_key(self, key: ApiKey, *, keep_plan: bool = False) -> ApiKey:
        """Adds a key, and its account or the account's plan."""
        return await self._writer.submit(lambda db: keys.add_key(db, key, keep_plan=keep_plan))

    async def list_keys(self) -> list[ApiKey]:
        """Reads every key, the oldest first."""
        return await self._read(keys.list_keys)

    async def revoke_key(self, key_id: str, now: int) -> ApiKey | None:
        """Marks a key revoked."""
        return await self._writer.submit(lambda db: keys.revoke_key(db, key_id, now))

    async def reserve(self, charges: Sequence[Charge]) -> Reservation:
        """Takes all charges, or none."""
        return await self._writer.submit(lambda db: limits.reserve(db, charges, self._clock()))

    async def settle(self, charges: Sequence[Charge]) -> None:
        """Takes or gives back."""
        await self._writer.submit(lambda db: limits.settle(db, charges, self._clock()))

    async def check(self) -> None:
        """Reads from the file. Raises StoreUnavailable."""
        await self._read(lambda db: db.execute("SELECT 1 FROM sessions LIMIT 1").fetchall())

    async def close(self) -> None:
        """Finishes what is being written, then closes."""
        await self._writer.close()
        self._reader.shutdown()
        self._readable.close()

    async def _end(self, turn: Turn, state: str, reason: str | None, answer: Sequence[Message]) -> None:
        messages = _serialized(answer)
        await self._writer.submit(lambda db: sessions.end_turn(db, turn, state, reason, messages))

    def _cancel(self, begun: tuple[Turn, list[bytes]]) -> None:
        """Gives back the lease of a turn whose caller went away while it began. Where that fails, it runs out."""
        with suppress(StoreUnavailable):
            ended = self._writer.submit(lambda db: sessions.end_turn(db, begun[0], "incomplete", "cancelled", []))
            ended.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def _read(self, work: Callable[[apsw.Connection], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, self._query, work)
        except RuntimeError as error:
            # The executor's way to say that it was shut down.
            raise StoreUnavailable("the store is closed") from error

    def _query(self, work: Callable[[apsw.Connection], T]) -> T:
        with self._readable.use() as connection:
            return work(connection)


def _serialized(messages: Iterable[Message]) -> list[bytes]:
    return [message.SerializeToString() for message in messages]
