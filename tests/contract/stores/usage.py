"""Contract of usage."""

import asyncio
from dataclasses import astuple

from parley.core.ports import Store, UsageCounts, UsageKey, UsageQuery
from tests.contract.stores.making import Clock

MONDAY, TUESDAY = 20_000, 20_001


def counts(number: int = 1) -> UsageCounts:
    """Returns counts that all differ."""
    return UsageCounts(*range(number, number + 8))


def total(*added: UsageCounts) -> UsageCounts:
    """Returns the sum of counts."""
    return UsageCounts(*map(sum, zip(*map(astuple, added), strict=True)))


def row(account: str = "ada", day: int = MONDAY, key: str = "key_1", model: str = "m", target: str = "t") -> UsageKey:
    """Returns a row's key."""
    return UsageKey(account, day, key, model, target)


class UsageContract:
    """Contract of usage."""

    async def test_nothing_used(self, store: Store) -> None:
        """Without usage there are no groups, and the sum of everything is zero."""
        assert [] == await store.usage(UsageQuery(("account",)))
        assert [((), UsageCounts())] == await store.usage(UsageQuery())

    async def test_sums_by_every_dimension(self, store: Store) -> None:
        """Usage is summed up by any dimensions, sorted by them in their order."""
        added = {row(): counts(1), row(day=TUESDAY, key="key_2"): counts(10), row("bob", target=""): counts(100)}
        await store.add_usage("w", 1, added)
        both = total(counts(1), counts(10))
        assert [(("ada",), both), (("bob",), counts(100))] == await store.usage(UsageQuery(("account",)))
        by_target = await store.usage(UsageQuery(("target", "day")))
        assert [(("", MONDAY), counts(100)), (("t", MONDAY), counts(1)), (("t", TUESDAY), counts(10))] == by_target
        everything = await store.usage(UsageQuery(("account", "day", "key", "model", "target")))
        assert sorted(added.items()) == [(UsageKey(*each.group), each.counts) for each in everything]  # type: ignore[arg-type]

    async def test_selection(self, store: Store) -> None:
        """Usage is selected by account, key, models and days, both days included; the number of rows is limited."""
        days = {row(day=MONDAY + number): counts(10**number) for number in range(4)}
        await store.add_usage("w", 1, {**days, row("bob"): counts(), row(key="k", model="n"): counts()})
        middle = await store.usage(UsageQuery(("day",), since=MONDAY + 1, until=MONDAY + 2, account="ada"))
        assert [((MONDAY + 1,), counts(10)), ((MONDAY + 2,), counts(100))] == middle
        assert [((MONDAY,), counts())] == await store.usage(UsageQuery(("day",), key="k"))
        assert [(("n",), counts())] == await store.usage(UsageQuery(("model",), models=("n", "none")))
        assert 2 == len(await store.usage(UsageQuery(("day",), limit=2)))
        assert [] == await store.usage(UsageQuery(("day",), account="nobody' OR 1=1"))

    async def test_many_workers_add_to_the_same_rows(self, store: Store, second: Store) -> None:
        """Concurrent batches of several workers to the same rows are all added, exactly."""
        names = [f"w{number}" for number in range(8)]
        rows = [row(), row(key="key_2"), row(day=TUESDAY)]

        async def add(place: int, name: str) -> None:
            ordered = rows if place % 2 else rows[::-1]
            for batch in range(1, 6):
                await (store, second)[place % 2].add_usage(name, batch, {each: counts(place) for each in ordered})

        await asyncio.gather(*[add(place, name) for place, name in enumerate(names)])
        expected = total(*[counts(place) for place in range(8) for _ in range(5)])
        found = await second.usage(UsageQuery(("key", "day")))
        assert [expected] * 3 == [each.counts for each in found]

    async def test_a_batch_counts_once(self, store: Store, second: Store, clock: Clock) -> None:
        """A batch that is sent again is ignored, at another store too; the next one of the worker counts."""
        await store.add_usage("w", 1, {row(): counts()})
        await asyncio.gather(*[each.add_usage("w", 1, {row(): counts()}) for each in (store, second, store)])
        clock.advance(3600)
        await second.add_usage("v", 1, {row(): counts()})
        await store.add_usage("w", 1, {row(): counts()})
        assert [((), total(counts(), counts()))] == await store.usage(UsageQuery())
        await store.add_usage("w", 2, {row(): counts(5)})
        assert [((), total(counts(), counts(), counts(5)))] == await store.usage(UsageQuery())

    async def test_large_sums(self, store: Store) -> None:
        """Sums beyond 32 bits are exact."""
        large = UsageCounts(*[2**50 + number for number in range(8)])
        await store.add_usage("w", 1, {row(): large})
        await store.add_usage("w", 2, {row(): large})
        assert [((), total(large, large))] == await store.usage(UsageQuery())
