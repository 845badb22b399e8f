"""Writes whose connections break, so that they may have been committed, and their repetition."""

from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import asyncpg
import pytest

import parley.stores.postgres
from parley.core.errors import KeyInUse, SessionBusy, StoreUnavailable
from parley.core.ports import Claim, Window
from parley.stores.postgres import PostgresStore, claims, limits, turn_writes
from parley.stores.postgres.database import Connection
from tests.contract.postgres_outage.recovery import PATIENT
from tests.contract.stores import LEASE, all_messages, begin, charge, complete, converse, hold, texts

_STORED = [("q", 1, "completed", None), ("a", 1, "completed", None)]
_LOST = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


async def test_a_server_that_has_become_read_only(patient: PostgresStore) -> None:
    """A write that a former primary has rejected is repeated on the new one."""
    attempts = 0

    async def work(db: Connection) -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await db.execute("SET default_transaction_read_only = on")
        await db.execute("CREATE TABLE parley.probe (number integer)")
        return attempts

    assert 2 == await patient._pool.run(work)  # noqa: SLF001 - no method makes a server read-only


async def test_a_write_of_unknown_outcome(patient: PostgresStore) -> None:
    """A write that was sent is not repeated unless it has a form that may follow an execution."""
    ran: list[str] = []

    async def work(_: Connection) -> None:
        ran.append("work")
        raise _LOST

    async def again(_: Connection) -> None:
        ran.append("again")

    with pytest.raises(StoreUnavailable):
        await patient._pool.run(work)  # noqa: SLF001 - the part that repeats
    await patient._pool.run(work, again)  # noqa: SLF001 - the part that repeats
    assert ["work", "work", "again"] == ran


@pytest.mark.parametrize("committed", [True, False])
async def test_connections_lost_in_a_turn(url: str, monkeypatch: pytest.MonkeyPatch, *, committed: bool) -> None:
    """Turns whose beginning and end have lost their connections are stored once, whether or not they were committed."""
    lost = [_lose_once(monkeypatch, turn_writes, name, committed=committed) for name in ("create", "end", "lease")]
    store = await PostgresStore.open(url, 8, timeouts=PATIENT)
    await converse(store, "s", "q", "a", new=True)
    assert _STORED == await all_messages(store, "s")
    for number, window in enumerate((Window(), Window(), Window(max_messages=2)), 2):
        lost[-1].is_lost = False
        turn = await begin(store, "s", f"q{number}", window=window)
        assert (number, "a") == (turn.number, texts(turn.history)[-1])
        await complete(store, turn, "a")
        assert all(one.is_lost for one in lost)
    assert {"completed"} == {state for _, _, state, _ in await all_messages(store, "s")}
    await store.close()


async def test_another_turn_won_the_lease(url: str, patient: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn whose connection was lost does not take the lease of another turn with the same message for its own."""
    await converse(patient, "s", "q", "a", new=True)
    lost = _lose_once(monkeypatch, turn_writes, "lease", committed=False)
    store = await PostgresStore.open(url, 8, timeouts=PATIENT)
    lost.before = lambda: begin(patient, "s", "q2")
    with pytest.raises(SessionBusy):
        await begin(store, "s", "q2")
    assert lost.is_lost
    await store.close()


@pytest.mark.parametrize("committed", [True, False])
async def test_a_connection_lost_in_a_claim(
    patient: PostgresStore, monkeypatch: pytest.MonkeyPatch, *, committed: bool
) -> None:
    """A claim whose connection was lost holds the key, once, and gets its reply."""
    _lose_once(monkeypatch, claims, "claim", committed=committed)
    held = await patient.claim("ada", "m", "k", b"digest", LEASE)
    assert isinstance(held, Claim)
    with pytest.raises(KeyInUse):
        await patient.claim("ada", "m", "k", b"digest", LEASE)
    await patient.end_claim(held, b"reply")
    assert b"reply" == await patient.claim("ada", "m", "k", b"digest", LEASE)


async def test_a_renewal_that_loses_its_connection(patient: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The renewal of leases is repeated: it may be executed twice."""
    turn = await begin(patient, "s", "q", new=True)
    await hold(patient, charge(1))
    _lose_once(monkeypatch, parley.stores.postgres, "renew_turns", committed=True)
    _lose_once(monkeypatch, limits, "renew", committed=True)
    await patient.renew_leases([turn], [], LEASE)
    await patient.renew_calls(["call"], LEASE)


class _LosingOnce:
    """A write whose first execution loses the connection, before or after its commit."""

    def __init__(self, write: Callable[..., Coroutine[Any, Any, Any]], *, committed: bool) -> None:
        self._write = write
        self._committed = committed
        self.is_lost = False
        self.before: Callable[[], Coroutine[Any, Any, Any]] | None = None

    async def __call__(self, *arguments: Any) -> Any:
        """Writes, or loses the connection."""
        if self.is_lost:
            return await self._write(*arguments)
        self.is_lost = True
        if self.before is not None:
            await self.before()
        if self._committed:
            await self._write(*arguments)
        raise _LOST


def _lose_once(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, *, committed: bool) -> _LosingOnce:
    """Lets the next execution of a module's write lose its connection; stores that are opened later use it."""
    write = _LosingOnce(getattr(module, name), committed=committed)
    monkeypatch.setattr(module, name, write)
    return write
