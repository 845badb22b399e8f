"""Contract of rate-limit buckets."""

import asyncio

import pytest

from parley.core.ports import Store
from tests.contract.stores.making import (
    Clock,
    charge,
)


class LimitContract:
    """Contract of rate-limit buckets."""

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
        await store.reserve([charge(50)])
        await second.settle([charge(-40)])
        assert (50,) == (await store.reserve([charge(0)])).remaining
        await second.settle([charge(80)])
        owed = await store.reserve([charge(1)])
        assert (False, (-30,)) == (owed.granted, owed.remaining)

    async def test_an_overdrawn_bucket_refills(self, store: Store, clock: Clock) -> None:
        """An overdrawn bucket refills at the same rate."""
        await store.settle([charge(90)])
        clock.advance(31)
        assert pytest.approx((1,)) == (await store.reserve([charge(0)])).remaining

    async def test_settling_does_not_overflow(self, store: Store, clock: Clock) -> None:
        """A refund never exceeds the capacity of a bucket that has refilled meanwhile."""
        await store.reserve([charge(50)])
        clock.advance(30)
        await store.settle([charge(-50)])
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
        await store.settle([])
