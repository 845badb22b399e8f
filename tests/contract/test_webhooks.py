"""Delivery of alerts to a real HTTP server that checks signatures with an independent implementation."""

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from parley.config import Webhook
from parley.core.ports import Alert
from parley.core.usage.delivery import AlertDelivery
from parley.stores.sqlite import SqliteStore
from parley.webhooks.receiver import WebhookReceiver
from tests.webhooks import PATH, SECRET, Receiver, receiving

ALERT = Alert("msg_1", "account:ada", "cost_per_month", "2026-11", 0.8, json.dumps({"type": "budget.reached", "é": 1}))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on a port of this machine."""
    with receiving() as made:
        yield made


def delivery(store: SqliteStore, url: str, *delays: float) -> AlertDelivery:
    """Returns a delivery to a URL."""
    return AlertDelivery(store, WebhookReceiver(Webhook(url=url, secret=SECRET)), delays)


async def deliver_all(deliveries: AlertDelivery, receiver: Receiver, requests: int) -> None:
    """Delivers until the receiver has got so many requests."""
    async with asyncio.timeout(30):
        while len(receiver.received) < requests:
            await deliveries.deliver()
            await asyncio.sleep(0.01)


async def test_a_receiver_that_fails_twice(store: SqliteStore, receiver: Receiver) -> None:
    """An alert is sent again, with the same id and a valid signature, until it is accepted."""
    receiver.statuses = [500, 302]
    await store.add_alert(ALERT, deliver=True)
    deliveries = delivery(store, receiver.url, 0.02, 0.02, 0.02)
    await deliver_all(deliveries, receiver, 3)
    await asyncio.sleep(0.1)
    await deliveries.deliver()
    assert [(PATH, json.loads(ALERT.payload), "msg_1")] * 3 == receiver.received
    assert 0 == deliveries.undelivered


async def test_another_process_continues(file: Path, receiver: Receiver) -> None:
    """An alert that was not accepted before a restart is delivered after it."""
    receiver.statuses = [503]
    before = SqliteStore(file)
    await before.add_alert(ALERT, deliver=True)
    await delivery(before, receiver.url, 0.01).deliver()
    await before.close()
    after = SqliteStore(file)
    await deliver_all(delivery(after, receiver.url, 0.01), receiver, 2)
    assert ["msg_1", "msg_1"] == [request[2] for request in receiver.received]
    await after.close()


@pytest.mark.parametrize(("status", "requests"), [(500, 3), (410, 1)])
async def test_an_alert_is_given_up(store: SqliteStore, receiver: Receiver, status: int, requests: int) -> None:
    """An alert is given up after its last retry, and at once if the receiver is gone."""
    receiver.statuses = [status] * 10
    await store.add_alert(ALERT, deliver=True)
    deliveries = delivery(store, receiver.url, 0.0, 0.0)
    with capture_logs() as logs:
        await deliver_all(deliveries, receiver, requests)
        await deliveries.deliver()
    assert requests == len(receiver.received)
    assert ("error", "alert not delivered") == (logs[-1]["log_level"], logs[-1]["event"])
    assert 1 == deliveries.undelivered


async def test_no_secret_in_the_log(store: SqliteStore, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the secret nor the path of the URL is logged, whatever fails."""
    receiver.statuses = [404]
    await store.add_alert(ALERT, deliver=True)
    with capture_logs() as logs, caplog.at_level(logging.DEBUG):
        await delivery(store, receiver.url, 60.0).deliver()
        await store.add_alert(Alert("msg_2", "account:bob", "cost_per_day", "2026-11-26", 1.0, "{}"), deliver=True)
        await delivery(store, f"http://127.0.0.1:1{PATH}", 60.0).deliver()
    assert {"the receiver answered 404", "ClientConnectorError: Connection refused"} == {
        line["cause"] for line in logs if "cause" in line
    }
    text = f"{logs} {caplog.text} {WebhookReceiver(Webhook(url=receiver.url, secret=SECRET))}"
    text += repr(Webhook(url=receiver.url, secret=SECRET))
    assert "token-in-the-path" not in text
    assert SECRET[6:] not in text
