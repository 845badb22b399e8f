"""Tests of waiting for other processes with SQLite, which polls and removes finished waits."""

import asyncio
from pathlib import Path

import pytest

from parley.core.errors import StoreUnavailable
from parley.stores.sqlite import SqliteStore
from parley.stores.sqlite.releases import LeaseWaiters
from tests.contract.stores import begin


class TestWaiting:
    """Tests of waiting for a session that another process releases."""

    async def test_polls_at_increasing_intervals(self) -> None:
        """A wait polls immediately, then at increasing intervals until its timeout."""
        looks = 0

        async def is_free() -> bool:
            nonlocal looks
            looks += 1
            return False

        await LeaseWaiters().wait("s", 0.5, is_free)
        # At 0, 20, 50, 95, 163, 264, 416 ms; on a slow machine less often.
        assert 2 <= looks <= 7

    async def test_a_release_during_the_poll(self) -> None:
        """A release between the poll and the wait is not missed."""
        releases = LeaseWaiters()

        async def is_free() -> bool:
            releases.announce("s")
            await asyncio.sleep(0)
            return False

        await asyncio.wait_for(releases.wait("s", 3600, is_free), 60)

    async def test_finished_waits_are_removed(self) -> None:
        """No wait remains registered after a timeout, a release, a cancellation or a failure."""
        releases = LeaseWaiters()

        async def never() -> bool:
            return False

        async def fail() -> bool:
            raise StoreUnavailable("away")

        await releases.wait("s", 0.03, never)
        waits = [asyncio.create_task(releases.wait("s", 3600, never)) for _ in range(3)]
        await asyncio.sleep(0)
        assert 3 == len(releases)
        waits[0].cancel()
        await asyncio.wait([waits[0]])
        assert 2 == len(releases)
        releases.announce("s")
        await asyncio.gather(*waits[1:])
        with pytest.raises(StoreUnavailable):
            await releases.wait("s", 3600, fail)
        assert 0 == len(releases)

    async def test_a_closed_store(self, file: Path) -> None:
        """A wait raises StoreUnavailable if the store is closed."""
        store = SqliteStore(file)
        await begin(store, "s", "q", new=True)
        wait = asyncio.create_task(store.wait_for_release("s", 3600))
        await store.get_session("ada", "s")
        await store.close()
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(wait, 60)
