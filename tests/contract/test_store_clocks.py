"""Tests of wrong and stepped clocks: no session, key, lease or limit depends on the clock of one process."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from parley.core.errors import SessionBusy
from parley.core.ports import Claim, Reaped, Store
from parley.stores.postgres import PostgresStore
from parley.stores.sqlite import SqliteStore
from tests.contract.stores import LEASE, Clock, all_messages, begin, charge, complete, converse

HOUR, DAY = 3600.0, 86_400.0
STEPS = [31 * DAY, 25 * HOUR, -31 * DAY, -25 * HOUR]
DIGEST = b"1" * 32


async def reap(store: Store) -> Reaped:
    """Runs the reaper with the default retention."""
    return await store.reap(session_age=30 * DAY, claim_age=DAY, limit=50)


async def answer(store: Store, key: str) -> None:
    """Stores the reply of a key with a turn of the session "s"."""
    lease = await store.claim("ada", "m", key, DIGEST, LEASE)
    assert isinstance(lease, Claim)
    await store.end_claim(lease, b"reply")


async def check_kept(store: Store) -> None:
    """Checks that the session "s" and the key "k" exist."""
    assert 2 == len(await all_messages(store, "s"))
    assert b"reply" == await store.claim("ada", "m", "k", DIGEST, LEASE)


class TestReplicas:
    """Tests of two replicas with one PostgreSQL server, where the clock of one replica is wrong."""

    @pytest.fixture
    async def right(self, postgres_url: str) -> AsyncIterator[PostgresStore]:
        """The replica with the correct clock."""
        new_store = await PostgresStore.open(postgres_url, 2)
        yield new_store
        await new_store.close()

    @pytest.mark.parametrize("step", STEPS)
    async def test_a_wrong_clock_deletes_nothing(self, right: PostgresStore, postgres_url: str, step: float) -> None:
        """The replica logs once that its clock is wrong, and reaps neither sessions nor keys."""
        skewed = Clock()
        wrong = PostgresStore(postgres_url, 2, wall=skewed)
        skewed.now = time.time() + step
        await converse(right, "s", "q", "a", new=True)
        await answer(right, "k")
        with capture_logs() as logs:
            for _ in range(3):
                assert Reaped() == await reap(wrong)
        assert [step] == [pytest.approx(line["seconds"], abs=5) for line in logs]
        await converse(wrong, "t", "q", "a", new=True)
        assert Reaped() == await reap(right)
        await check_kept(right)
        assert 2 == len(await all_messages(right, "t"))
        await wrong.close()

    async def test_crashed_turns_are_marked_by_either(self, right: PostgresStore, postgres_url: str) -> None:
        """Leases follow the database's clock: a replica with a wrong clock marks only crashed turns."""
        wrong = PostgresStore(postgres_url, 2, wall=Clock())
        await begin(right, "s", "runs", new=True)
        assert Reaped() == await reap(wrong)
        await right.renew_leases([await begin(right, "t", "crashed", new=True)], [], -1)
        assert Reaped(crashed=1) == await reap(wrong)
        await wrong.close()

    async def test_reaping_resumes_with_a_correct_clock(self, right: PostgresStore, postgres_url: str) -> None:
        """A replica with a corrected clock works without a restart."""
        clock, wall = Clock(), Clock()
        store = PostgresStore(postgres_url, 2, clock=clock, wall=wall)
        await converse(store, "s", "q", "a", new=True)
        clock.advance(31 * DAY)
        assert Reaped() == await reap(store)
        wall.advance(31 * DAY + 4)
        assert Reaped(sessions=1) == await reap(store)
        await store.close()


class TestMachine:
    """Tests of an SQLite file on a machine whose wall clock is stepped."""

    @pytest.fixture
    def wall(self) -> Clock:
        """The wall clock."""
        return Clock()

    @pytest.fixture
    def uptime(self) -> Clock:
        """The uptime, which a step of the wall clock does not change."""
        made = Clock()
        made.now = 5000.0
        return made

    @pytest.fixture
    async def store(self, file: Path, wall: Clock, uptime: Clock) -> AsyncIterator[SqliteStore]:
        """A store with both clocks."""
        new_store = SqliteStore(file, wall, uptime, "boot")
        yield new_store
        await new_store.close()

    @pytest.mark.parametrize("step", STEPS)
    async def test_a_step_deletes_nothing(
        self, file: Path, store: SqliteStore, wall: Clock, uptime: Clock, step: float
    ) -> None:
        """A step deletes nothing, whether all processes see it or one, and after a step back."""
        other_wall = Clock()
        other = SqliteStore(file, other_wall, uptime, "boot")
        await converse(store, "s", "q", "a", new=True)
        await answer(store, "k")
        assert Reaped() == await reap(store)
        with capture_logs() as logs:
            for clock in (wall, other_wall):
                clock.advance(step)
                assert [Reaped()] * 4 == [await reap(one) for one in (store, other) * 2]
        assert {step} == {abs(line["seconds"]) * (1 if step > 0 else -1) for line in logs}
        wall.advance(-step)
        assert Reaped() == await reap(store)
        await check_kept(other)
        await other.close()

    @pytest.mark.parametrize("step", STEPS)
    async def test_a_step_changes_no_lease_and_no_limit(
        self, store: SqliteStore, wall: Clock, uptime: Clock, step: float
    ) -> None:
        """A step leaves a turn in progress, and its lease expires by measured time."""
        turn = await begin(store, "s", "q", new=True)
        await store.reserve([charge(60)])
        wall.advance(step)
        with pytest.raises(SessionBusy):
            await begin(store, "s", "q2")
        assert Reaped() == await reap(store)
        assert (0,) == (await store.reserve([charge(0)])).remaining
        await complete(store, turn, "a")
        await begin(store, "s", "q2")
        uptime.advance(LEASE)
        assert Reaped(crashed=1) == await reap(store)
        assert (10,) == (await store.reserve([charge(0)])).remaining

    async def test_ages_are_measured(self, store: SqliteStore, wall: Clock, uptime: Clock) -> None:
        """Retention ends after its measured duration, regardless of steps of the wall clock."""
        await converse(store, "s", "q", "a", new=True)
        await reap(store)
        for step in (40 * DAY, -40 * DAY):
            wall.advance(step)
            await reap(store)
        for _ in range(30):
            assert Reaped() == await reap(store)
            for clock in (wall, uptime):
                clock.advance(DAY)
        assert Reaped() == await reap(store)
        for clock in (wall, uptime):
            clock.advance(1)
        assert Reaped(sessions=1) == await reap(store)

    async def test_a_stepped_clock_is_trusted_after_a_day(self, store: SqliteStore, wall: Clock, uptime: Clock) -> None:
        """A stepped clock is trusted after a day without another step."""
        await converse(store, "s", "q", "a", new=True)
        await reap(store)
        wall.advance(40 * DAY)
        for _ in range(24):
            assert Reaped() == await reap(store)
            for clock in (wall, uptime):
                clock.advance(HOUR)
        assert Reaped(sessions=1) == await reap(store)

    async def test_a_rebooted_machine(self, file: Path, store: SqliteStore, wall: Clock, uptime: Clock) -> None:
        """A reboot expires all leases, and ages are trusted again after a measured day."""
        await begin(store, "s", "cut", new=True)
        await reap(store)
        await store.close()
        wall.advance(40 * DAY)
        uptime.now = 10.0
        again = SqliteStore(file, wall, uptime, "another boot")
        assert Reaped(crashed=1) == await reap(again)
        for clock in (wall, uptime):
            clock.advance(DAY - 10)
        assert Reaped() == await reap(again)
        for clock in (wall, uptime):
            clock.advance(10)
        assert Reaped(sessions=1) == await reap(again)
        await again.close()
