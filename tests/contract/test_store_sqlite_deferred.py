# ruff: noqa: ASYNC240 - a test may keep its loop waiting
"""Turns in new sessions whose beginning the SQLite store writes later."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from parley.core.errors import SessionNotFound, StorageLimitExceeded, StoreUnavailable, TurnLost
from parley.core.offload import LARGE_BYTES, record_size
from parley.core.ports import Claim, StorageLimits, Turn, TurnBegin, TurnEnd
from parley.stores.serialized import serialize
from parley.stores.sqlite import SqliteStore
from parley.stores.sqlite.deferred import DeferredBegin, DeferredBegins
from parley.v1.message_pb2 import Usage
from parley.v1.receipt_pb2 import Receipt
from tests.contract.stores import all_messages, begin, complete, converse, message
from tests.contract.stores.making import LEASE, Clock, charge, hold, settlement
from tests.contract.test_store_sqlite import queued

_SYSTEM, _QUESTION = message("system", "be kind"), message("user", "q")


def opening(session: str = "s", storage: StorageLimits | None = None) -> TurnBegin:
    """Returns the first turn of a session."""
    labels = {"team": "blue"}
    return TurnBegin(
        "ada",
        "m",
        session,
        new=True,
        messages=[_SYSTEM, _QUESTION],
        metadata=labels,
        storage=storage or StorageLimits(session_bytes=1000),
    )


def defer(store: SqliteStore, session: str = "s") -> Turn:
    """Begins a turn that is written later."""
    turn = store.defer_turn(opening(session), LEASE)
    assert turn is not None
    return turn


async def state(store: SqliteStore, session: str) -> list[tuple[str, int, str, str | None]]:
    """Returns the messages of a session, none if it is not written."""
    try:
        return await all_messages(store, session)
    except SessionNotFound:
        return []


async def becomes(true: Callable[[], Awaitable[bool]]) -> None:
    """Waits for a state."""
    async with asyncio.timeout(30):
        while not await true():
            await asyncio.sleep(0.01)


async def everything(store: SqliteStore, session: str) -> tuple[object, ...]:
    """Returns what a reader sees of a session, without times, and what the next turn gets."""
    found, _ = await store.list_messages("ada", session, page_size=9, page_token=None)
    for one in found:
        one.created = 0
    listed = await store.get_session("ada", session)
    return found, listed.turn_count, listed.model, await begin(store, session, "more")


@pytest.mark.parametrize("end", ["completed", "incomplete"])
async def test_a_turn_that_ends_at_once_is_written_with_one_commit(file: Path, end: str) -> None:
    """The whole turn equals one that was written at its beginning, and its reservation is settled."""
    store = SqliteStore(file, Clock())
    ended = TurnEnd(
        end,
        None if end == "completed" else "failed",
        [message("assistant", "a")],
        Usage(total_tokens=3),
        settlement=settlement((charge(10), 4)),
        receipt=Receipt(cost=0.5),
    )
    await hold(store, charge(10))
    await store.end_turn(await store.begin_turn(opening("s"), LEASE), ended)
    await hold(store, charge(10))
    before = store.counts.commits
    await store.end_turn(defer(store, "t"), ended)
    assert 1 == store.counts.commits - before
    (*written, one), (*deferred, other) = [await everything(store, session) for session in ("s", "t")]
    assert written == deferred
    assert isinstance(one, Turn)
    assert isinstance(other, Turn)
    assert (one.number, one.fence, one.history) == (other.number, other.fence, other.history)
    assert (52,) == (await store.reserve([charge(0)])).remaining
    await store.close()


async def test_a_turn_that_runs_is_written_meanwhile(store: SqliteStore) -> None:
    """A running turn becomes visible with its lease, and ends like any other."""
    turn = defer(store)
    assert [] == await state(store, "s")
    await becomes(lambda: _is_running(store))
    await complete(store, turn, "a")
    expected = [("be kind", 1, "completed", None), ("q", 1, "completed", None), ("a", 1, "completed", None)]
    assert expected == await state(store, "s")
    await converse(store, "s", "more", "b")


async def _is_running(store: SqliteStore) -> bool:
    return [one[2] for one in await state(store, "s")] == ["in_progress"] * 2


async def test_an_end_during_the_write_of_the_beginning(store: SqliteStore) -> None:
    """A turn that ends in any iteration of the loop around the write of its beginning is complete."""
    turns = [defer(store, f"s{number}") for number in range(40)]
    for turn in turns:
        await asyncio.sleep(0.01)
        await complete(store, turn, "a")
    for turn in turns:
        assert ["completed"] * 3 == [one[2] for one in await state(store, turn.session_id)]


async def test_turns_that_end_together(store: SqliteStore, file: Path) -> None:
    """Turns that wait together are written with one commit; one that has lost its claim is not, the others are."""
    claim = await store.claim("ada", "m", "k", b"d", LEASE)
    assert isinstance(claim, Claim)
    lost = TurnEnd("completed", answer=[message("assistant", "a")], claim=replace(claim, fence=claim.fence + 1))
    turns = [defer(store, f"s{number}") for number in range(70)]
    before = store.counts.commits
    ends = [complete(store, turn, f"to {turn.session_id}", "b") for turn in turns[1:]]
    results = await queued(store, file, _end(store, turns[0], lost), *ends)
    assert 1 == store.counts.commits - before
    assert [TurnLost, *[type(None)] * 69] == [type(result) for result in results]
    assert [] == await state(store, "s0")
    for turn in turns[1:]:
        texts = [one[0] for one in await state(store, turn.session_id)]
        assert ["be kind", "q", f"to {turn.session_id}", "b"] == texts


async def _end(store: SqliteStore, turn: Turn, end: TurnEnd) -> None:
    await store.end_turn(turn, end)


async def test_an_outage(store: SqliteStore, file: Path) -> None:
    """A beginning that cannot be written is written after the outage; no other turn is deferred during it."""
    turn, other = defer(store, "s"), defer(store, "t")
    away = file.rename(file.with_name("away.db"))
    numbers = count()
    await becomes(lambda: asyncio.sleep(0, store.defer_turn(opening(f"u{next(numbers)}"), LEASE) is None))
    with pytest.raises(StoreUnavailable):
        await complete(store, other, "a")
    away.rename(file)
    await complete(store, turn, "a")
    assert ["completed"] * 3 == [one[2] for one in await state(store, "s")]
    assert [] == await state(store, "t")


async def test_a_failed_check(store: SqliteStore, file: Path) -> None:
    """A store whose check has failed defers nothing until a write succeeds."""
    away = file.rename(file.with_name("away.db"))
    with pytest.raises(StoreUnavailable):
        await store.check()
    assert store.defer_turn(opening(), LEASE) is None
    away.rename(file)
    await converse(store, "other", "q", "a", new=True)
    assert store.defer_turn(opening(), LEASE) is not None


async def test_close_writes_what_is_deferred(file: Path) -> None:
    """A turn that runs while the store is closed is found by the next process."""
    store = SqliteStore(file)
    defer(store)
    await store.close()
    again = SqliteStore(file)
    assert await _is_running(again)
    await again.close()


async def test_what_is_not_deferred(store: SqliteStore) -> None:
    """A turn whose account has limits is begun at once, and so is a large call; a session's limit is known at once."""
    for limits in (StorageLimits(sessions=5), StorageLimits(bytes=5000)):
        assert store.defer_turn(opening(storage=limits), LEASE) is None
    with pytest.raises(StorageLimitExceeded):
        store.defer_turn(opening(storage=StorageLimits(session_bytes=10)), LEASE)

    async def large_call() -> Turn | None:
        record_size(size=LARGE_BYTES)
        return store.defer_turn(opening(), LEASE)

    assert await asyncio.create_task(large_call()) is None


def unwritten() -> DeferredBegin:
    """Returns the beginning of a turn of the session `s`."""
    begin = opening()
    return DeferredBegin(begin, serialize(begin.messages), 0.0, LEASE)


async def test_the_beginning_fails_to_be_written_just_before_the_turn_ends() -> None:
    """The end of the turn gets the beginning, whose own write has failed."""
    writes: list[asyncio.Future[None]] = []
    deferred = DeferredBegins(lambda _: writes.append(asyncio.Future()) or writes[-1])  # type: ignore[func-returns-value]
    deferred.add(unwritten())
    async with asyncio.timeout(30):
        while not writes:
            await asyncio.sleep(0.01)
    writes[0].set_exception(StoreUnavailable("disk full"))
    assert deferred.take("s") is None
    await asyncio.sleep(0)  # the failure is noticed
    found = await deferred.take_unwritten("s")
    assert found is not None
    await deferred.close()
    assert 1 == len(writes)


async def test_a_turn_ends_while_the_store_closes() -> None:
    """The end of a turn does not get a beginning that is being written."""
    writing: asyncio.Future[None] = asyncio.Future()
    deferred = DeferredBegins(lambda _: writing)
    deferred.add(unwritten())
    closing = asyncio.create_task(deferred.close())
    await asyncio.sleep(0)
    assert deferred.take("s") is None
    writing.set_result(None)
    await closing
