"""The usage recorder: what a call counts, and when and how often counts are written."""

from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from parley.config import Timeouts
from parley.core.errors import StoreUnavailable
from parley.core.ports import Caller, UpstreamCall, UsageCounts, UsageKey, UsageQuery, UsageRow
from parley.core.usage.attempts import AttemptKind, AttemptOutcome, AttemptRecord
from parley.core.usage.recorder import UsageRecorder
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Usage

ADA = Caller("ada", "key_1")
DAY = 20_000
NOON = DAY * 86400 + 43200.0


class Store:
    """Usage in memory. Each outcome of `outcomes` is that of one write: an error before it, after it, or none."""

    def __init__(self, *outcomes: str) -> None:
        self.outcomes = list(outcomes)
        self.rows: dict[UsageKey, UsageCounts] = {}
        self.batches: list[int] = []

    async def add_usage(self, writer: str, batch: int, usage: Mapping[UsageKey, UsageCounts]) -> None:
        outcome = self.outcomes.pop(0) if self.outcomes else "written"
        if outcome == "rejected":
            raise ValueError(outcome)
        if outcome != "lost" and batch not in self.batches:
            self.batches.append(batch)
            for key, counts in usage.items():
                self.rows.setdefault(key, UsageCounts()).add(counts)
        if outcome != "written":
            raise StoreUnavailable(outcome)

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        raise NotImplementedError


def row(model: str = "m", target: str = "b/t", day: int = DAY) -> UsageKey:
    """Returns the key of a row."""
    return UsageKey("ada", day, "key_1", model, target)


def attempt(
    outcome: str, backend: str = "b", model: str = "m", tokens: int = 0, cost: float | None = None
) -> AttemptRecord:
    """Returns an attempt with some tokens of each kind."""
    usage = Usage(prompt_tokens=4 * tokens, completion_tokens=2 * tokens) if tokens else None
    if usage is not None:
        usage.prompt_tokens_details.cached_tokens = 3 * tokens
        usage.completion_tokens_details.reasoning_tokens = tokens
    return AttemptRecord(
        model_id=model,
        backend=backend,
        target_model="t",
        price=None,
        call=UpstreamCall(CreateChatCompletionRequest(), model, Timeouts()),
        kind=AttemptKind.FIRST,
        started=0.0,
        outcome=AttemptOutcome(outcome),
        usage=usage,
        cost=cost,
    )


def recorder(store: Store) -> UsageRecorder:
    """Returns a recorder at noon."""
    return UsageRecorder(store, clock=lambda: NOON)


async def test_a_call_with_one_attempt() -> None:
    """A call counts its tokens and its cost at its target."""
    store = Store()
    counting = recorder(store)
    for _ in range(3):
        counting.record(ADA, "m", [attempt("completed", tokens=10, cost=0.000_000_125)], failed=False)
    await counting.flush()
    assert {row(): UsageCounts(3, 0, 3, 120, 90, 60, 30, 375)} == store.rows


async def test_attempts_count_at_their_targets() -> None:
    """Each attempt counts at its own target and model; the call counts once, where it was answered."""
    store = Store()
    counting = recorder(store)
    attempts = [
        attempt("failed", "a"),
        attempt("completed", "b", "backup", tokens=1),
        attempt("cancelled", "c", tokens=2),
    ]
    counting.record(ADA, "m", attempts, failed=False)
    await counting.flush()
    first, other = UsageCounts(attempts=1), UsageCounts(0, 0, 1, 8, 6, 4, 2)
    expected = {row(target="a/t"): first, row("backup"): UsageCounts(1, 0, 1, 4, 3, 2, 1), row(target="c/t"): other}
    assert expected == store.rows


async def test_failed_calls() -> None:
    """A failed call is an error at its last attempt's target, and without an attempt at its model."""
    store = Store()
    counting = recorder(store)
    counting.record(ADA, "m", [attempt("failed", "a"), attempt("failed", "b", tokens=1)], failed=True)
    counting.record(ADA, "m", (), failed=True)
    await counting.flush()
    last = UsageCounts(1, 1, 1, 4, 3, 2, 1)
    assert {row(target="a/t"): UsageCounts(attempts=1), row(): last, row(target=""): UsageCounts(1, 1)} == store.rows


async def test_the_day_is_that_of_the_end_of_the_call() -> None:
    """Calls of two days in UTC, counted in one write, are two rows."""
    store, now = Store(), [NOON + 43199.9]
    counting = UsageRecorder(store, clock=lambda: now[0])
    counting.record(ADA, "m", (), failed=False)
    now[0] += 0.2
    counting.record(ADA, "m", (), failed=False)
    await counting.flush()
    assert {row(target="", day=day): UsageCounts(1) for day in (DAY, DAY + 1)} == store.rows


@pytest.mark.parametrize("outcome", ["lost", "uncertain"])
async def test_a_failed_write_is_repeated(outcome: str) -> None:
    """Counts survive an outage, and count once if the failed write had been committed."""
    store = Store(outcome, outcome)
    counting = recorder(store)
    for _ in range(2):
        counting.record(ADA, "m", (), failed=False)
        with pytest.raises(StoreUnavailable):
            await counting.flush()
    counting.record(ADA, "m", (), failed=False)
    await counting.close()
    assert {row(target=""): UsageCounts(3)} == store.rows
    assert [1, 2] == store.batches


async def test_a_rejected_write_is_not_repeated() -> None:
    """Counts that the store rejects are counted, logged and dropped, so that later ones are written."""
    store = Store("rejected")
    counting = recorder(store)
    for _ in range(2):
        counting.record(ADA, "\0", [attempt("completed", cost=0.25)], failed=False)
    with capture_logs() as logs:
        await counting.flush()
    assert [("error", 2, 0.5)] == [(line["log_level"], line["calls"], line["cost"]) for line in logs]
    counting.record(ADA, "m", (), failed=False)
    await counting.flush()
    assert ({row(target=""): UsageCounts(1)}, 2) == (store.rows, counting.calls_lost)


async def test_what_cannot_be_written_at_the_end_is_lost() -> None:
    """A worker that ends during an outage counts and logs what it has not written."""
    counting = recorder(Store(*["lost"] * 2))
    counting.record(ADA, "m", (), failed=False)
    with pytest.raises(StoreUnavailable):
        await counting.flush()
    counting.record(ADA, "other", (), failed=False)
    with capture_logs() as logs:
        await counting.close()
    assert ([("error", 2)], 2) == ([(line["log_level"], line["calls"]) for line in logs], counting.calls_lost)


async def test_nothing_used_is_not_written() -> None:
    """Without calls there is no write."""
    store = Store()
    await recorder(store).flush()
    await recorder(store).close()
    assert [] == store.batches
