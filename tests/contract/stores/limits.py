"""Contract of rate-limit buckets."""

import asyncio
from dataclasses import replace
from math import inf

import pytest

from parley.core.ports import Charge, RunningCall, Store
from tests.contract.stores.making import LEASE, Clock, charge, hold, settlement


class LimitContract:
    """Contract of the limits of a minute."""

    async def test_a_bucket_is_full_at_first_and_empties(self, store: Store) -> None:
        """Reservations are granted until the bucket is empty; a reservation that does not fit withdraws nothing."""
        first, second, third = [await store.reserve([charge(amount)]) for amount in (40, 21, 20)]
        assert (True, (20,)) == (first.granted, first.remaining)
        assert (False, (20,)) == (second.granted, second.remaining)
        assert (True, (0,)) == (third.granted, third.remaining)

    async def test_a_bucket_fills_evenly(self, store: Store, clock: Clock) -> None:
        """The bucket refills at a constant rate until it is full."""
        await store.reserve([charge(60)])
        clock.advance(10)
        assert pytest.approx((10,)) == (await store.reserve([charge(0)])).remaining
        clock.advance(0.5)
        assert pytest.approx((0.5,)) == (await store.reserve([charge(10)])).remaining
        clock.advance(600)
        assert (60,) == (await store.reserve([charge(0)])).remaining

    async def test_waiting_as_long_as_it_takes_is_enough(self, store: Store, clock: Clock) -> None:
        """A reservation after exactly one refill interval is granted, despite rounding errors."""
        await store.reserve([charge(7, per_minute=7)])
        for _ in range(100):
            clock.advance(60 / 7)
            assert (await store.reserve([charge(1, per_minute=7)])).granted
        clock.advance(60 / 7 - 0.01)
        assert not (await store.reserve([charge(1, per_minute=7)])).granted

    async def test_all_or_nothing(self, store: Store) -> None:
        """If one bucket has too little left, no bucket is charged."""
        key, account = charge(10), charge(10, subject="account:a")
        await store.reserve([charge(55, subject="account:a")])
        rejected = await store.reserve([key, account])
        assert (False, (60, 5)) == (rejected.granted, rejected.remaining)
        assert (60, 5) == (await store.reserve([charge(0), charge(0, subject="account:a")])).remaining

    async def test_buckets_are_independent(self, store: Store) -> None:
        """Different subjects and different kinds have different buckets."""
        await store.reserve([charge(60)])
        others = [charge(60, subject="key:2"), charge(60, kind="requests"), charge(60, subject="account:1")]
        assert (True, (0, 0, 0)) == ((made := await store.reserve(others)).granted, made.remaining)

    async def test_workers_share_a_bucket(self, store: Store, second: Store) -> None:
        """Concurrent reservations of several workers are granted up to the capacity of one bucket."""
        calls = [
            one.reserve([charge(1), charge(1, subject="account:a", per_minute=100)]) for one in [store, second] * 50
        ]
        made = await asyncio.gather(*calls)
        assert 60 == sum(one.granted for one in made)
        assert (0, 40) == (await second.reserve([charge(0), charge(0, subject="account:a", per_minute=100)])).remaining

    async def test_settling_refunds_and_charges(self, store: Store, second: Store) -> None:
        """Unused tokens are refunded; use beyond the reservation overdraws the bucket."""
        await hold(store, charge(50))
        await second.settle(settlement((charge(50), 10)))
        assert (50,) == (await store.reserve([charge(0)])).remaining
        await hold(store, charge(0))
        await second.settle(settlement((charge(0), 80)))
        owed = await store.reserve([charge(1)])
        assert (False, (-30,)) == (owed.granted, owed.remaining)

    async def test_an_overdrawn_bucket_refills(self, store: Store, clock: Clock) -> None:
        """An overdrawn bucket refills at the same rate."""
        await hold(store, charge(0))
        await store.settle(settlement((charge(0), 90)))
        clock.advance(31)
        assert pytest.approx((1,)) == (await store.reserve([charge(0)])).remaining

    async def test_settling_does_not_overflow(self, store: Store, clock: Clock) -> None:
        """A refund never exceeds the capacity of a bucket that has refilled meanwhile."""
        await hold(store, charge(50), lease_seconds=60)
        clock.advance(30)
        await store.settle(settlement((charge(50), 0)))
        assert (60,) == (await store.reserve([charge(0)])).remaining
        assert not (await store.reserve([charge(61)])).granted

    async def test_another_size(self, store: Store) -> None:
        """A change of the limit keeps the used amount."""
        await store.reserve([charge(50)])
        assert (950,) == (await store.reserve([charge(0, per_minute=1000)])).remaining
        assert (-10,) == (await store.reserve([charge(0, per_minute=40)])).remaining

    async def test_a_clock_that_was_set_back(self, store: Store, clock: Clock) -> None:
        """A backward step of the clock does not keep a bucket empty."""
        await store.reserve([charge(60)])
        clock.advance(-3600)
        assert (await store.reserve([charge(60)])).granted

    async def test_nothing_to_count(self, store: Store) -> None:
        """A reservation without charges is granted."""
        assert (True, ()) == ((made := await store.reserve([])).granted, made.remaining)
        await hold(store)
        await store.settle(settlement())

    async def test_concurrent_calls(self, store: Store, second: Store) -> None:
        """As many calls run as the limit allows; the end of one admits another one."""
        slot = Charge("key:1", "concurrent", 2, 1)
        made = [await hold(one, slot, call_id=f"c{number}") for number, one in enumerate((store, second, store))]
        assert [(True, (1,)), (True, (0,)), (False, (0,))] == [(one.granted, one.remaining) for one in made]
        await second.settle(settlement(call_id="c0"))
        assert (await hold(store, slot, call_id="c3")).granted

    async def test_concurrent_calls_of_an_account(self, store: Store) -> None:
        """The calls of all keys of an account count."""
        slots = [Charge("account:a", "concurrent", 2, 1), Charge("key:1", "concurrent", 9, 1)]
        await store.reserve([slots[0]], RunningCall("other", "key:2", "account:a"), LEASE)
        assert (1, 9) == (await store.reserve([replace(slot, amount=0) for slot in slots])).remaining
        await hold(store, *slots)
        assert (False, (0, 8)) == ((made := await hold(store, *slots, call_id="c2")).granted, made.remaining)

    async def test_the_calls_of_a_killed_worker_end_with_their_leases(self, store: Store, clock: Clock) -> None:
        """A call whose lease expired does not count, even before the reaper removes it; a renewed one does."""
        slot = Charge("key:1", "concurrent", 1, 1)
        await hold(store, slot)
        clock.advance(LEASE - 1)
        await store.renew_calls(["call"], LEASE)
        clock.advance(LEASE - 1)
        assert not (await hold(store, slot, call_id="c2")).granted
        clock.advance(1)
        assert (await hold(store, slot, call_id="c3")).granted

    async def test_workers_share_the_concurrent_calls(self, store: Store, second: Store) -> None:
        """Concurrent reservations of several workers are granted up to the limit."""
        slot = Charge("key:1", "concurrent", 7, 1)
        calls = [hold(one, slot, call_id=f"c{number}") for number, one in enumerate([store, second] * 20)]
        assert 7 == sum(made.granted for made in await asyncio.gather(*calls))

    @pytest.mark.parametrize(
        ("kind", "left", "following"),
        [("tokens_per_day", 6_399.75, 86_400), ("cost_per_month", 1_388_799.75, 31 * 86_400)],
    )
    async def test_calendar_windows(
        self, store: Store, second: Store, clock: Clock, kind: str, left: float, following: float
    ) -> None:
        """What is used counts until the day or month ends in UTC, and then not at all."""
        used, unused = Charge("key:1", kind, 10, 6.5), Charge("key:1", kind, 10, 0)
        assert (True, (3.5,)) == ((made := await store.reserve([used])).granted, made.remaining)
        clock.advance(left - 0.5)
        assert (False, (3.5,)) == ((made := await second.reserve([used])).granted, made.remaining)
        clock.advance(0.5)
        assert (10,) == (await store.reserve([unused])).remaining
        await store.reserve([used])
        clock.advance(following - 0.5)
        assert (3.5,) == (await store.reserve([unused])).remaining
        clock.advance(0.5)
        assert (10,) == (await store.reserve([unused])).remaining

    async def test_a_call_counts_on_the_day_on_which_it_began(self, store: Store, clock: Clock) -> None:
        """A call that ends on another day neither charges nor refunds that day; in the minute it does."""
        day, minute = Charge("key:1", "tokens_per_day", 100, 60), charge(600, per_minute=600)
        await hold(store, day, minute, lease_seconds=86_400)
        clock.advance(86_400)
        await store.reserve([replace(day, amount=10)])
        await store.settle(settlement((day, 50), (minute, 700)))
        assert (90, 500) == (await store.reserve([replace(day, amount=0), replace(minute, amount=0)])).remaining

    async def test_the_reservations_of_a_killed_worker_are_returned(self, store: Store, clock: Clock) -> None:
        """A day's and a month's reservations of a crashed call are returned by the reaper, and requests are not."""
        charges = [Charge("key:1", kind, 100, 60) for kind in ("tokens_per_day", "cost_per_month")]
        await hold(store, *charges, charge(60, kind="requests"))
        clock.advance(LEASE)
        await store.reap(session_age=None, claim_age=inf, limit=9)
        unused = [replace(one, amount=0) for one in (*charges, charge(60, kind="requests"))]
        assert (100, 100, 10) == (await store.reserve(unused)).remaining
