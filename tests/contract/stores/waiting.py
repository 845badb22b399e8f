"""Contract of waiting for a session."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from parley.core.errors import SessionBusy
from parley.core.ports import Store, TurnEnd
from tests.contract.stores.making import (
    LEASE,
    Clock,
    begin,
    complete,
    converse,
)

# Far longer than any test: a wait of this duration was not woken.
_LONG = 3600.0


async def returned(wait: Coroutine[Any, Any, None]) -> None:
    """Awaits a wait. Raises TimeoutError if it does not return."""
    async with asyncio.timeout(60):
        await wait


class WaitContract:
    """Contract of waiting, which ends with the turn of any worker or with the timeout."""

    async def test_a_free_session(self, store: Store) -> None:
        """A wait for a free or unknown session returns immediately."""
        await converse(store, "s", "q", "a", new=True)
        await returned(store.wait_for_release("s", _LONG))
        await returned(store.wait_for_release("nowhere", _LONG))

    @pytest.mark.parametrize("ending", ["completed", "incomplete"])
    @pytest.mark.parametrize("here", [True, False])
    async def test_released(self, store: Store, second: Store, ending: str, here: bool) -> None:
        """All waits return when the turn ends, at the same worker or another."""
        turn = await begin(store, "s", "q", new=True)
        worker = store if here else second
        waits = [asyncio.create_task(worker.wait_for_release("s", _LONG)) for _ in range(8)]
        for _ in range(20):
            await worker.get_session("ada", "s")
        assert not any(wait.done() for wait in waits)
        await store.end_turn(turn, TurnEnd(ending, None if ending == "completed" else "failed"))
        for wait in waits:
            await returned(asyncio.wait_for(wait, None))
        assert 2 == (await begin(worker, "s", "q2")).number

    async def test_time_out(self, store: Store) -> None:
        """A wait returns after its timeout while the session is busy."""
        await begin(store, "s", "q", new=True)
        for seconds in (0.05, 0, -1):
            await returned(store.wait_for_release("s", seconds))
        with pytest.raises(SessionBusy):
            await begin(store, "s", "q2")

    async def test_lease_that_runs_out(self, store: Store, second: Store, clock: Clock) -> None:
        """A wait returns when the lease expires."""
        await begin(store, "s", "q", new=True)
        wait = asyncio.create_task(second.wait_for_release("s", _LONG))
        await second.get_session("ada", "s")
        clock.advance(LEASE)
        await returned(asyncio.wait_for(wait, None))

    async def test_another_session(self, store: Store) -> None:
        """The end of another session's turn does not end a wait."""
        await begin(store, "s", "q", new=True)
        wait = asyncio.create_task(store.wait_for_release("s", _LONG))
        for number in range(10):
            await converse(store, "t", "q", "a", new=number == 0)
        assert not wait.done()
        wait.cancel()
        await asyncio.wait([wait])

    async def test_cancelled(self, store: Store) -> None:
        """A cancelled wait ends, and other waits continue."""
        turn = await begin(store, "s", "q", new=True)
        leaves, stays = (asyncio.create_task(store.wait_for_release("s", _LONG)) for _ in range(2))
        await store.get_session("ada", "s")
        leaves.cancel()
        await asyncio.wait([leaves])
        assert leaves.cancelled()
        assert not stays.done()
        await complete(store, turn)
        await returned(asyncio.wait_for(stays, None))
