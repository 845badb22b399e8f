"""Contract of alerts."""

import asyncio
from dataclasses import replace

from parley.core.ports import Alert, Store
from tests.contract.stores.making import Clock

ALERT = Alert("msg_1", "account:ada", "cost_per_month", "2026-11", 0.8, '{"type": "é"}')


def taken(alert: Alert, tries: int = 1) -> Alert:
    """Returns the alert as a delivery gets it."""
    return replace(alert, tries=tries)


class AlertContract:
    """Contract of alerts."""

    async def test_one_for_each_period_and_threshold(self, store: Store, second: Store) -> None:
        """Of many workers that report the same threshold of a period, one is told that it is new."""
        alerts = [replace(ALERT, id=f"msg_{number}") for number in range(8)]
        added = [(store, second)[number % 2].add_alert(alert, deliver=True) for number, alert in enumerate(alerts)]
        assert [False] * 7 + [True] == sorted(await asyncio.gather(*added))
        others = [
            replace(ALERT, id="msg_a", subject="account:bob"),
            replace(ALERT, id="msg_b", limit="cost_per_day"),
            replace(ALERT, id="msg_c", period="2026-12"),
            replace(ALERT, id="msg_d", threshold=1.0),
        ]
        assert [True] * 4 == [await second.add_alert(other, deliver=True) for other in others]

    async def test_not_delivered(self, store: Store) -> None:
        """An alert that is only logged is never due."""
        assert await store.add_alert(ALERT, deliver=False)
        assert not await store.add_alert(replace(ALERT, id="msg_2"), deliver=True)
        assert await store.take_alert(10) is None

    async def test_one_worker_delivers(self, store: Store, second: Store, clock: Clock) -> None:
        """Of several workers one gets an alert; another one gets it again if the delivery does not end in time."""
        await store.add_alert(ALERT, deliver=True)
        found = await asyncio.gather(*[each.take_alert(10) for each in (store, second, store, second)])
        assert [taken(ALERT)] == [alert for alert in found if alert is not None]
        clock.advance(9.9)
        assert await second.take_alert(10) is None
        clock.advance(0.2)
        assert taken(ALERT, 2) == await second.take_alert(10)

    async def test_the_end_of_a_delivery(self, store: Store, clock: Clock) -> None:
        """A delivery is repeated after its delay, or never."""
        await store.add_alert(ALERT, deliver=True)
        await store.take_alert(10)
        await store.end_alert(ALERT.id, 100)
        clock.advance(99)
        assert await store.take_alert(10) is None
        clock.advance(2)
        assert taken(ALERT, 2) == await store.take_alert(10)
        await store.end_alert(ALERT.id, None)
        clock.advance(1e6)
        assert await store.take_alert(10) is None
        assert not await store.add_alert(ALERT, deliver=True)

    async def test_old_alerts_are_forgotten(self, store: Store, clock: Clock) -> None:
        """An alert is kept for longer than its period, until it is delivered."""
        await store.add_alert(ALERT, deliver=False)
        waiting = replace(ALERT, id="msg_2", subject="account:bob")
        await store.add_alert(waiting, deliver=True)
        clock.advance(99 * 86400)
        assert not await store.add_alert(ALERT, deliver=False)
        clock.advance(2 * 86400)
        assert await store.add_alert(replace(ALERT, period="2027-03", id="msg_3"), deliver=False)
        assert await store.add_alert(ALERT, deliver=False)
        assert taken(waiting) == await store.take_alert(10)
