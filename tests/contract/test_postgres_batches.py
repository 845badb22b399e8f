"""Tests of turns of PostgreSQL that share a statement, and of sessions that need not be read."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from parley.core.errors import SessionNotFound, TurnLost
from parley.core.ports import Turn, TurnEnd, Window
from parley.stores.postgres import PostgresStore, turn_writes
from tests.contract.stores import (
    LEASE,
    Clock,
    all_messages,
    begin,
    charge,
    complete,
    converse,
    end_incomplete,
    hold,
    message,
    settlement,
    texts,
)
from tests.postgres import Server
from tests.processes import PATIENCE


@pytest.fixture
def clock() -> Clock:
    """The clock of the store."""
    return Clock()


@pytest.fixture
async def store(postgres_url: str, clock: Clock) -> AsyncIterator[PostgresStore]:
    """A store with this clock."""
    opened = await PostgresStore.open(postgres_url, clock=clock)
    yield opened
    await opened.close()


# The turns that share a transaction with another one.
_SHARED = "SELECT count(*) - count(DISTINCT xmin::text) FROM parley.sessions"
_LOSE = """
DELETE FROM parley.turns WHERE number = 3;
UPDATE parley.sessions SET turn_count = 2, lease_fence = 2, completed_messages = 4;
"""
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'parley'"


async def test_concurrent_turns_share_transactions(postgres_server: Server, store: PostgresStore) -> None:
    """Turns that begin or end together are written by few transactions, each completely."""
    names = [f"s{number}" for number in range(20)]
    for round_number in range(2):
        await asyncio.gather(*[converse(store, name, "q", f"a {name}", new=round_number == 0) for name in names])
    assert int(await asyncio.to_thread(postgres_server.sql, _SHARED, "parley")) > 10
    for name in names:
        expected = [("q", 1), (f"a {name}", 1), ("q", 2), (f"a {name}", 2)]
        assert [(*one, "completed", None) for one in expected] == await all_messages(store, name)


async def test_a_rejected_turn_fails_alone(store: PostgresStore) -> None:
    """A turn that the server rejects does not fail the turns that share its statement."""
    names = ["a", "b\ud800", "c"]
    turns = await asyncio.gather(*[begin(store, name, "q", new=True) for name in names], return_exceptions=True)
    assert [True, False, True] == [isinstance(turn, Turn) for turn in turns]
    twice = await asyncio.gather(*[begin(store, name, "q", new=True) for name in "adc"], return_exceptions=True)
    rejected, created, _ = twice
    assert isinstance(rejected, asyncpg.UniqueViolationError)
    assert isinstance(created, Turn)


async def test_a_lost_turn_fails_alone(store: PostgresStore, clock: Clock) -> None:
    """A turn whose lease was taken over writes nothing, and the turns that share its statement are completed."""
    turns = [await begin(store, name, "q", new=True) for name in "abc"]
    clock.advance(LEASE)
    await begin(store, "b", "next")
    ends = await asyncio.gather(*[complete(store, turn, "a") for turn in turns], return_exceptions=True)
    assert [None, TurnLost, None] == [end and type(end) for end in ends]
    assert ["q", "next"] == [text for text, *_ in await all_messages(store, "b")]


async def test_settlements_of_one_statement(store: PostgresStore) -> None:
    """Turns that end together settle their limits exactly, each with its own charges."""
    turns = [await begin(store, f"s{number}", "q", new=True) for number in range(6)]
    charges = [charge(10, subject=f"key:{number % 2}", per_minute=1000) for number in range(6)]
    for number, one in enumerate(charges):
        await hold(store, one, call_id=f"call {number}")
    ends = [
        TurnEnd("completed", settlement=settlement((one, number), call_id=f"call {number}"))
        for number, one in enumerate(charges)
    ]
    await asyncio.gather(*[store.end_turn(turn, end) for turn, end in zip(turns, ends, strict=True)])
    left = [(await store.reserve([charge(0, subject=f"key:{key}", per_minute=1000)])).remaining for key in range(2)]
    assert [(1000 - 0 - 2 - 4,), (1000 - 1 - 3 - 5,)] == left


async def test_a_locked_session_delays_no_other(postgres_url: str, store: PostgresStore) -> None:
    """While a statement waits for a locked row, other turns begin and end."""
    turns = [await begin(store, name, "q", new=True) for name in "ab"]
    other = await asyncpg.connect(postgres_url)
    async with other.transaction():
        await other.execute("SELECT FROM parley.sessions WHERE id = 'a' FOR UPDATE")
        waiting = asyncio.create_task(complete(store, turns[0], "a"))
        async with asyncio.timeout(PATIENCE):
            while not await other.fetchval(_WAITING):
                await asyncio.sleep(0.01)
            await complete(store, turns[1], "a")
            await converse(store, "c", "q", "a", new=True)
        assert not waiting.done()
    await waiting
    await other.close()
    assert ["q", "a"] == [text for text, *_ in await all_messages(store, "a")]


async def test_a_session_is_read_once(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its third turn on, a session that only one worker uses is not read."""
    await converse(store, "s", "q1", "a1", new=True)
    await converse(store, "s", "q2", "a2")
    monkeypatch.setattr(store._pool, "read", None)  # noqa: SLF001 - a read would fail
    await end_incomplete(store, await begin(store, "s", "q3"), "failed", "partial")
    turn = await begin(store, "s", message("system", "new"), "q4", window=Window(max_messages=2))
    assert ["q2", "a2"] == texts(turn.history)
    await complete(store, turn, "a4")
    turn = await begin(store, "s", message("system", "new"), "q5", window=Window(max_messages=2))
    assert ["new", "q4", "a4"] == texts(turn.history)
    assert ["q5"] == texts(turn.messages)


async def test_a_session_that_another_worker_has_used(postgres_url: str, clock: Clock, store: PostgresStore) -> None:
    """A worker reads a session again after a turn or a deletion by another worker."""
    other = await PostgresStore.open(postgres_url, clock=clock)
    for number, worker in enumerate((store, store, store, other, store, other, other, store)):
        turn = await begin(worker, "s", f"q{number}", new=number == 0)
        assert [text for past in range(number) for text in (f"q{past}", f"a{past}")] == texts(turn.history)
        await complete(worker, turn, f"a{number}")
    await other.delete_session("ada", "s")
    with pytest.raises(SessionNotFound):
        await begin(store, "s", "q")
    await other.close()


async def test_a_database_that_lost_turns(
    postgres_server: Server, postgres_url: str, clock: Clock, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover that lost a turn, the turn that another worker wrote in its place is read."""
    monkeypatch.setattr(turn_writes, "_fence_step", lambda: 1)  # the fences of both turns are equal
    for number in range(3):
        await converse(store, "s", f"q{number}", f"a{number}", new=number == 0)
    await asyncio.to_thread(postgres_server.sql, _LOSE, "parley")
    clock.advance(0.001)
    other = await PostgresStore.open(postgres_url, clock=clock)
    await converse(other, "s", "other", "one")
    await other.close()
    assert ["q0", "a0", "q1", "a1", "other", "one"] == texts((await begin(store, "s", "q3")).history)
