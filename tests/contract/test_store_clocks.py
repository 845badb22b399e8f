"""Clocks that are wrong or are stepped: no session, key, lease or limit may depend on the clock of one process."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from parley.core.errors import SessionBusy
from parley.core.ports import Claim, Reaped, Store
from parley.stores.postgres import PostgresStore
from parley.stores.sqlite import SqliteStore

pytest.register_assert_rewrite("tests.contract.stores")

from tests.contract.stores import LEASE, Clock, all_messages, begin, charge, complete, converse  # noqa: E402 - rewritten

HOUR, DAY = 3600.0, 86_400.0
STEPS = [31 * DAY, 25 * HOUR, -31 * DAY, -25 * HOUR]
DIGEST = b"1" * 32


async def reap(store: Store) -> Reaped:
    """Reaps as the reaper does, with the default retention."""
    return await store.reap(session_age=30 * DAY, claim_age=DAY, limit=50)


async def answer(store: Store, key: str) -> None:
    """Has a key answered by a turn of the session "s"."""
    lease = await store.claim("ada", "m", key, DIGEST, LEASE)
    assert isinstance(lease, Claim)
    await store.end_claim(lease, b"reply")


async def check_kept(store: Store) -> None:
    """Checks that the session "s" and the key "k" are still there."""
    assert 2 == len(await all_messages(store, "s"))
    assert b"reply" == await store.claim("ada", "m", "k", DIGEST, LEASE)


class TestReplicas:
    """Two replicas on one PostgreSQL; the clock of one is wrong."""

    @pytest.fixture
    async def right(self, postgres_url: str) -> AsyncIterator[PostgresStore]:
        """The replica whose clock is right."""
        new_store = await PostgresStore.open(postgres_url, 2)
        yield new_store
        await new_store.close()

    @pytest.mark.parametrize("step", STEPS)
    async def test_a_wrong_clock_deletes_nothing(self, right: PostgresStore, postgres_url: str, step: float) -> None:
        """The replica says once that its clock is wrong, and reaps neither sessions nor keys of either replica."""
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
        """Leases are the database's: a replica with a wrong clock marks what has crashed, and nothing that runs."""
        wrong = PostgresStore(postgres_url, 2, wall=Clock())
        await begin(right, "s", "runs", new=True)
        assert Reaped() == await reap(wrong)
        await right.renew_leases([await begin(right, "t", "crashed", new=True)], [], -1)
        assert Reaped(crashed=1) == await reap(wrong)
        await wrong.close()

    async def test_it_reaps_again_when_its_clock_is_right(self, right: PostgresStore, postgres_url: str) -> None:
        """A clock that is set right needs no restart."""
        clock, wall = Clock(), Clock()
        store = PostgresStore(postgres_url, 2, clock=clock, wall=wall)
        await converse(store, "s", "q", "a", new=True)
        clock.advance(31 * DAY)
        assert Reaped() == await reap(store)
        wall.advance(31 * DAY + 4)
        assert Reaped(sessions=1) == await reap(store)
        await store.close()


class TestMachine:
    """An SQLite file on a machine whose wall clock is stepped."""

    @pytest.fixture
    def wall(self) -> Clock:
        """The wall clock."""
        return Clock()

    @pytest.fixture
    def uptime(self) -> Clock:
        """What no step of the wall clock changes."""
        made = Clock()
        made.now = 5000.0
        return made

    @pytest.fixture
    async def store(self, file: Path, wall: Clock, uptime: Clock) -> AsyncIterator[SqliteStore]:
        """A store that reads the two."""
        new_store = SqliteStore(file, wall, uptime, "boot")
        yield new_store
        await new_store.close()

    @pytest.mark.parametrize("step", STEPS)
    async def test_a_step_deletes_nothing(
        self, file: Path, store: SqliteStore, wall: Clock, uptime: Clock, step: float
    ) -> None:
        """Neither where all processes see it, nor where one does, nor when the clock is stepped back."""
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
        """A turn in progress stays in progress, and its session is free when its lease is over by measured time."""
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
        """Retention ends when it has been measured, whatever the wall clock did in between."""
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

    async def test_a_clock_that_stays_is_believed(self, store: SqliteStore, wall: Clock, uptime: Clock) -> None:
        """A step after which the clock goes on for a day was right: a clock that was behind is set once."""
        await converse(store, "s", "q", "a", new=True)
        await reap(store)
        wall.advance(40 * DAY)
        for _ in range(24):
            assert Reaped() == await reap(store)
            for clock in (wall, uptime):
                clock.advance(HOUR)
        assert Reaped(sessions=1) == await reap(store)

    async def test_a_machine_that_was_off(self, file: Path, store: SqliteStore, wall: Clock, uptime: Clock) -> None:
        """After a start nothing holds a lease, whatever the clocks say; ages go on once a day has been measured."""
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
