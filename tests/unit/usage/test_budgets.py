"""Soft budgets: which thresholds are reported, how often, and with what."""

import json
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Value
from structlog.testing import capture_logs

from parley.config import UNLIMITED, Limits
from parley.core.errors import QuotaExhausted, StoreUnavailable
from parley.core.ports import Caller, Charge, RunningCall, Settlement, UsageCounts, UsageKey
from parley.core.usage.budgets import BudgetMonitor
from parley.core.usage.limits import RateLimiter
from parley.core.usage.recorder import day
from parley.stores.sqlite import SqliteStore
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
TODAY = day(NOW)
ACCOUNT = Limits(cost_per_month=10, tokens_per_day=1000)
ADA = Caller("ada", "key_1", key_limits=Limits(cost_per_day=4), account_limits=ACCOUNT)
NANOS = 1_000_000_000


class Worker:
    """A worker's monitor, with a settable clock."""

    def __init__(self, store: SqliteStore, *, deliver: bool = True, warn_at: tuple[float, ...] = (1.0, 0.8)) -> None:
        self.store = store
        self.now = NOW
        self.batch = 0
        self.monitor = BudgetMonitor(store, warn_at, deliver=deliver, clock=lambda: self.now, pause_seconds=10)

    async def use(
        self, *, days_ago: int = 0, key: str = "key_1", account: str = "ada", cost: float = 0, tokens: int = 0
    ) -> None:
        """Stores usage, as a worker of another process would."""
        self.batch += 1
        counts = UsageCounts(1, prompt_tokens=tokens // 2, completion_tokens=tokens // 2, cost_nanos=int(cost * NANOS))
        row = UsageKey(account, day(self.now) - days_ago, key, "m", "t")
        await self.store.add_usage(f"{id(self)}", self.batch, {row: counts})

    async def check(self, *callers: Caller) -> list[MutableMapping[str, Any]]:
        """Checks the callers 10 s later, and returns what is logged."""
        self.now += 10
        self.monitor.add(callers or (ADA,))
        with capture_logs() as logs:
            await self.monitor.check()
        assert all(("warning", "budget reached") == (line.pop("log_level"), line.pop("event")) for line in logs)
        return logs


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An empty store."""
    made = SqliteStore(tmp_path / "parley.db")
    yield made
    await made.close()


@pytest.fixture
def worker(store: SqliteStore) -> Worker:
    """A worker."""
    return Worker(store)


def reached(limit: str, threshold: float, used: float, allowed: float, key: str | None = None) -> dict[str, Any]:
    """Returns the fields of a report."""
    period = "2026-11-26" if "day" in limit else "2026-11"
    fields = {"limit": limit, "period": period, "threshold": threshold, "used": used, "allowed": allowed}
    return {"account": "ada", **({"key": key} if key else {}), **fields}


async def test_each_threshold_once(worker: Worker) -> None:
    """A share of a limit is reported when the usage reaches it, and not again."""
    await worker.use(tokens=798)
    assert [] == await worker.check()
    await worker.use(tokens=2)
    assert [reached("tokens_per_day", 0.8, 800, 1000)] == await worker.check()
    await worker.use(tokens=100)
    assert [] == await worker.check()
    await worker.use(tokens=400)
    assert [reached("tokens_per_day", 1.0, 1300, 1000)] == await worker.check()
    assert [] == await worker.check()


async def test_periods(worker: Worker) -> None:
    """A month counts all of its days, a day only itself; each period is reported anew."""
    await worker.use(days_ago=25, cost=5)
    await worker.use(days_ago=26, cost=100)  # in October
    assert [] == await worker.check()
    await worker.use(cost=3)
    assert [reached("cost_per_month", 0.8, 8, 10)] == await worker.check()
    worker.now += 86400 * 6
    await worker.use(cost=8)
    expected = [("cost_per_month", "2026-12"), ("cost_per_day", "2026-12-02"), ("cost_per_day", "2026-12-02")]
    assert expected == [(line["limit"], line["period"]) for line in await worker.check()]


async def test_a_call_that_a_limit_rejects(worker: Worker) -> None:
    """A share that only a call reaches which the limit rejects is reported with what the call needed."""
    await worker.use(cost=3.1)
    assert [] == await worker.check()
    needed = {"needed": 1.0}
    worker.monitor.add_rejected(ADA, [Charge("key:key_1", "cost_per_day", 4, 1.0)])
    shares = [reached("cost_per_day", share, 3.1, 4, "key_1") | needed for share in (0.8, 1.0)]
    assert shares == await worker.check()
    worker.monitor.add_rejected(ADA, [Charge("key:key_1", "cost_per_day", 4, 1.0)])
    assert [] == await worker.check()


async def test_the_limiter_marks_the_callers_that_it_rejects(worker: Worker) -> None:
    """A call without `max_tokens` may need a quarter of the limit, of which less is left."""
    limiter = RateLimiter(worker.store, on_rejected=worker.monitor.add_rejected)
    request = CreateChatCompletionRequest(messages=[Message(role="user", content=Value(string_value="Hello"))])
    charge = Charge("account:ada", "tokens_per_day", 1000, 770)
    await worker.store.reserve([charge], RunningCall("1", "key:key_1", "account:ada"), 10)
    await worker.store.settle(Settlement("1", [replace(charge, reserved=770)]))
    await worker.use(tokens=770)
    with pytest.raises(QuotaExhausted):
        (await limiter.admit(request, ADA)).require_granted()
    await limiter.close()
    (shown, *_) = [line for line in await worker.check(Caller("bob", "key_2")) if line["threshold"] == 0.8]
    assert (770, 252) == (shown["used"], shown["needed"])


async def test_a_call_that_running_calls_leave_no_room_for(worker: Worker) -> None:
    """What running calls have reserved is not used: their end gives most of it back."""
    worker.monitor.add_rejected(ADA, [Charge("account:ada", "tokens_per_day", 1000, 250)])
    assert [] == await worker.check()
    await worker.use(tokens=740)
    assert [] == await worker.check()
    await worker.use(tokens=20)  # now it would be rejected again
    assert [0.8, 1.0] == [line["threshold"] for line in await worker.check()]


async def test_what_a_call_needed_counts_in_its_period(worker: Worker) -> None:
    """On the next day the limit may not reject such a call."""
    worker.monitor.add_rejected(ADA, [Charge("account:ada", "tokens_per_day", 1000, 250)])
    worker.now += 86400
    await worker.use(tokens=760)
    assert [] == await worker.check()


async def test_a_share_beyond_the_limit_needs_usage(store: SqliteStore) -> None:
    """A rejected call does not add to what is beyond the limit."""
    worker = Worker(store, warn_at=(1.5,))
    await worker.use(tokens=990)
    worker.monitor.add_rejected(ADA, [Charge("account:ada", "tokens_per_day", 1000, 900)])
    assert [] == await worker.check()


async def test_keys_and_accounts(worker: Worker) -> None:
    """A key's limit counts its own usage, an account's that of all keys; other accounts do not count."""
    other = Caller("ada", "key_2", key_limits=Limits(cost_per_day=4), account_limits=ACCOUNT)
    await worker.use(cost=3.2)
    await worker.use(key="key_2", cost=3)
    await worker.use(account="bob", cost=100)
    assert [reached("cost_per_day", 0.8, 3.2, 4, "key_1")] == await worker.check(ADA, other)
    await worker.use(key="key_3", cost=1.8)
    assert [reached("cost_per_month", 0.8, 8, 10)] == await worker.check(ADA)


async def test_many_workers_report_once(store: SqliteStore) -> None:
    """Of several workers one logs a threshold."""
    workers = [Worker(store) for _ in range(3)]
    await workers[0].use(tokens=800)
    assert [1, 0, 0] == [len(await worker.check()) for worker in workers]


async def test_the_alert(worker: Worker) -> None:
    """The alert has the form that Standard Webhooks recommends."""
    await worker.use(tokens=800)
    await worker.check()
    alert = await worker.store.take_alert(10)
    assert alert is not None
    data = reached("tokens_per_day", 0.8, 800, 1000)
    assert {"type": "budget.reached", "timestamp": "2026-11-26T12:00:10Z", "data": data} == json.loads(alert.payload)


async def test_without_a_webhook(store: SqliteStore) -> None:
    """Without a receiver, a threshold is logged only."""
    worker = Worker(store, deliver=False)
    await worker.use(tokens=1000)
    assert 2 == len(await worker.check())
    assert await store.take_alert(10) is None


async def test_an_account_is_checked_every_ten_seconds(worker: Worker) -> None:
    """Calls within ten seconds after a check are checked together."""
    assert [] == await worker.check()
    await worker.use(tokens=800)
    worker.now -= 1
    assert [] == await worker.check()
    assert 1 == len(await worker.check())


async def test_without_limits(worker: Worker) -> None:
    """A caller without limits of days and months is not looked up."""
    await worker.store.close()
    per_minute = Limits(tokens_per_minute=1)
    assert [] == await worker.check(Caller("a", "k"), Caller("b", "k", key_limits=per_minute, account_limits=UNLIMITED))


async def test_an_outage(worker: Worker) -> None:
    """A check that fails is repeated."""
    await worker.use(tokens=800)
    usage = worker.store.usage

    async def fail(_: object) -> Any:
        raise StoreUnavailable("away")

    worker.store.usage = fail  # type: ignore[method-assign, assignment]
    worker.monitor.add([ADA])
    with pytest.raises(StoreUnavailable):
        await worker.monitor.check()
    worker.store.usage = usage  # type: ignore[method-assign]
    with capture_logs() as logs:
        await worker.monitor.check()
    assert 1 == len(logs)
