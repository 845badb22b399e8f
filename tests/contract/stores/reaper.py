"""Contract of the reaper."""

import asyncio
from dataclasses import replace
from math import inf

import pytest

from parley.core.errors import ReplyDeleted, SessionNotFound, TurnLost
from parley.core.ports import Claim, Reaped, SessionFilter, Store, TurnEnd
from tests.contract.stores.making import (
    LEASE,
    Clock,
    all_messages,
    begin,
    charge,
    complete,
    converse,
    end_incomplete,
    hold,
    settlement,
)

DAY = 86_400.0


async def reap(store: Store, *, sessions: float | None = None, claims: float = inf, limit: int = 100) -> Reaped:
    """Runs the reaper with the given ages in seconds."""
    return await store.reap(session_age=sessions, claim_age=claims, limit=limit)


class ReaperContract:
    """Contract of the reaper: crashed turns, retention and old keys."""

    async def test_crashed_turn(self, store: Store, second: Store, clock: Clock) -> None:
        """The turn of a crashed worker is marked after its lease expires, and not before."""
        await begin(store, "s", "one", new=True)
        clock.advance(LEASE - 0.01)
        assert Reaped() == await reap(second)
        clock.advance(0.01)
        assert Reaped(crashed=1) == await reap(second)
        assert Reaped() == await reap(store)
        assert [("one", 1, "incomplete", "crashed")] == await all_messages(store, "s")
        assert (2, []) == ((turn := await begin(store, "s", "two")).number, turn.history)

    async def test_late_worker_cannot_write(self, store: Store, second: Store, clock: Clock) -> None:
        """A turn that the reaper has marked cannot end, even if no other turn holds the session."""
        turn = await begin(store, "s", "one", new=True)
        clock.advance(LEASE)
        await reap(second)
        await store.renew_leases([turn], [], LEASE)
        with pytest.raises(TurnLost):
            await complete(store, turn, "too late")
        with pytest.raises(TurnLost):
            await end_incomplete(store, turn, "failed", "too late")
        assert [("one", 1, "incomplete", "crashed")] == await all_messages(store, "s")
        await converse(second, "s", "two", "done")

    async def test_running_turns_stay(self, store: Store, clock: Clock) -> None:
        """Turns with a renewed lease and ended turns remain unchanged."""
        turn = await begin(store, "s", "one", new=True)
        await converse(store, "t", "q", "a", new=True)
        for _ in range(3):
            clock.advance(LEASE - 1)
            await store.renew_leases([turn], [], LEASE)
            assert Reaped() == await reap(store)
        await complete(store, turn, "done")

    async def test_retention(self, store: Store, second: Store, clock: Clock) -> None:
        """Sessions whose latest turn is older than the retention are deleted, with their messages and replies."""
        lease = await store.claim("ada", "m", "k", b"1", LEASE)
        assert isinstance(lease, Claim)
        turn = await begin(store, "old", "q", new=True)
        await store.end_turn(turn, TurnEnd("completed", claim=lease, reply=b"reply"))
        await converse(store, "used", "q", "a", new=True)
        clock.advance(DAY)
        await converse(store, "used", "q2", "a2")
        await converse(store, "new", "q", "a", new=True)
        assert Reaped() == await reap(store, sessions=DAY)
        assert Reaped(sessions=1) == await reap(store, sessions=DAY - 1)
        with pytest.raises(SessionNotFound):
            await second.list_messages("ada", "old", page_size=1, page_token=None)
        with pytest.raises(ReplyDeleted):
            await store.claim("ada", "m", "k", b"1", LEASE)
        assert (4, 2) == (len(await all_messages(second, "used")), len(await all_messages(second, "new")))

    async def test_no_retention(self, store: Store, clock: Clock) -> None:
        """Without a retention, sessions are kept."""
        await converse(store, "s", "q", "a", new=True)
        clock.advance(10_000 * DAY)
        assert Reaped() == await reap(store, sessions=None, claims=0)
        assert 2 == len(await all_messages(store, "s"))

    async def test_a_running_turn_keeps_its_session(self, store: Store, clock: Clock) -> None:
        """A session with a running turn is not deleted, however old; after a crash it is."""
        turn = await begin(store, "s", "q", new=True)
        clock.advance(DAY)
        await store.renew_leases([turn], [], LEASE)
        assert Reaped() == await reap(store, sessions=0)
        clock.advance(LEASE)
        assert Reaped(crashed=1, sessions=1) == await reap(store, sessions=0)

    async def test_the_age_of_a_fork_counts_from_its_creation(self, store: Store, clock: Clock) -> None:
        """The age of a fork counts from its creation, not from its turns."""
        await converse(store, "s", "q", "a", new=True)
        clock.advance(DAY)
        await store.fork_session("ada", "s", "f", None)
        assert Reaped(sessions=1) == await reap(store, sessions=0)
        assert 2 == len(await all_messages(store, "f"))

    async def test_limits(self, store: Store, clock: Clock) -> None:
        """At most `limit` of each kind are cleared in one run."""
        for number in range(5):
            await begin(store, f"s{number}", "q", new=True)
            await store.claim("ada", "m", f"k{number}", b"1", LEASE)
            clock.advance(1)
        clock.advance(LEASE)
        assert Reaped(2, 0, 2) == await reap(store, claims=0, limit=2)
        assert Reaped(3, 3, 3) == await reap(store, sessions=0, claims=0, limit=3)
        assert Reaped(0, 2, 0) == await reap(store, sessions=0, claims=0, limit=2)

    async def test_the_oldest_are_deleted_first(self, store: Store, clock: Clock) -> None:
        """The sessions with the oldest turns are deleted first."""
        for session in "cab":
            await converse(store, session, "q", "a", new=True)
            clock.advance(1)
        await reap(store, sessions=0, limit=2)
        page, _ = await store.list_sessions("ada", SessionFilter(), page_size=9, page_token=None)
        assert ["b"] == [one.id for one in page]

    async def test_reapers_together(self, store: Store, second: Store, clock: Clock) -> None:
        """Concurrent reapers clear each item once."""
        for number in range(10):
            await begin(store, f"s{number}", "q", new=True)
        clock.advance(LEASE)
        reaped = await asyncio.gather(*[reap(one, limit=3) for one in [store, second] * 4])
        assert 10 == sum(one.crashed for one in reaped)

    async def test_old_keys(self, store: Store, clock: Clock) -> None:
        """A reply is kept for the given time after its storage; then its key can be used again."""
        lease = await store.claim("ada", "m", "k", b"1", DAY)
        assert isinstance(lease, Claim)
        clock.advance(60)
        await store.end_claim(lease, b"reply")
        clock.advance(DAY)
        assert Reaped() == await reap(store, claims=DAY)
        assert b"reply" == await store.claim("ada", "m", "k", b"1", LEASE)
        assert Reaped(claims=1) == await reap(store, claims=DAY - 1)
        assert isinstance(await store.claim("ada", "m", "k", b"2", LEASE), Claim)

    async def test_keys_in_use_stay(self, store: Store, clock: Clock) -> None:
        """A key that a call holds is kept, however old; the key of a crashed call is not."""
        lease = await store.claim("ada", "m", "k", b"1", LEASE)
        assert isinstance(lease, Claim)
        clock.advance(DAY)
        await store.renew_leases([], [lease], LEASE)
        assert Reaped() == await reap(store, claims=0)
        clock.advance(LEASE)
        assert Reaped(claims=1) == await reap(store, claims=0)
        with pytest.raises(TurnLost):
            await store.end_claim(lease, b"late")

    async def test_a_reply_expires_before_its_session(self, store: Store, clock: Clock) -> None:
        """Deleting old replies does not change their sessions."""
        lease = await store.claim("ada", "m", "k", b"1", LEASE)
        assert isinstance(lease, Claim)
        turn = await begin(store, "s", "q", new=True)
        await store.end_turn(turn, TurnEnd("completed", claim=lease, reply=b"reply"))
        clock.advance(DAY)
        assert Reaped(claims=1) == await reap(store, claims=0)
        assert 1 == len(await all_messages(store, "s"))

    async def test_the_reservation_of_a_crashed_call_is_returned(
        self, store: Store, second: Store, clock: Clock
    ) -> None:
        """The tokens reserved by a killed worker are returned once, when the lease of its call has expired."""
        charges = [charge(40), charge(40, subject="account:a", per_minute=6000)]
        unused = [replace(one, amount=0) for one in charges]
        await hold(store, *charges)
        clock.advance(LEASE - 0.01)
        await reap(second)
        assert pytest.approx((30, 6000), abs=0.1) == (await second.reserve(unused)).remaining
        clock.advance(0.01)
        await reap(second)
        assert (60, 6000) == (await second.reserve(unused)).remaining
        await store.reserve([charge(50)])
        await reap(second)
        assert (10,) == (await second.reserve([charge(0)])).remaining

    async def test_the_reservation_of_a_running_call_stays(self, store: Store, clock: Clock) -> None:
        """The reservation of a call with a renewed lease is not returned."""
        await hold(store, charge(500, per_minute=600))
        for _ in range(3):
            clock.advance(LEASE - 1)
            await store.renew_calls(["call", "unknown"], LEASE)
            await reap(store)
        assert pytest.approx((370,)) == (await store.reserve([charge(0, per_minute=600)])).remaining

    async def test_a_call_that_ends_late_is_charged_what_it_used(
        self, store: Store, second: Store, clock: Clock
    ) -> None:
        """A worker that slept past its lease charges the use of its call, because its reservation was returned."""
        await hold(store, charge(40))
        clock.advance(LEASE)
        await reap(second)
        await store.settle(settlement((charge(40), 25)))
        assert (35,) == (await store.reserve([charge(0)])).remaining

    async def test_a_call_that_ends_keeps_no_reservation(self, store: Store) -> None:
        """The reaper returns no reservation of a call that has ended."""
        for state in ("completed", "incomplete"):
            turn = await begin(store, state, "q", new=True)
            await hold(store, charge(30))
            await store.end_turn(turn, TurnEnd(state, settlement=settlement((charge(30), 25))))
        await reap(store)
        assert (10,) == (await store.reserve([charge(0)])).remaining
