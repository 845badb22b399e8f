"""Usage through the full stack: exact sums of calls with every outcome, over REST and by command."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.receipt_pb2 import Attempt, Receipt
from tests.e2e import vendor
from tests.postgres import serving
from tests.processes import Parley, run_here, started, until
from tests.rpc.calling import chat_request
from tests.upstream import Cut, Delay, Events, Json, Received, ScriptedUpstream
from tests.webhooks import SECRET, receiving

CALLS = 40
CONFIG = """
backends:
  flaky: {{kind: openai, base_url: "{flaky}"}}
  good: {{kind: openai, base_url: "{good}"}}
models:
  - {{id: plain, targets: [{{backend: flaky, model: fast}}], fallbacks: [backup]}}
  - {{id: fails, targets: [{{backend: flaky, model: gone}}], fallbacks: [backup]}}
  - {{id: breaks, targets: [{{backend: flaky, model: cut}}], fallbacks: [backup]}}
  - {{id: slow, targets: [{{backend: flaky, model: late}}], fallbacks: [backup], hedge: 50ms, retries: {{share: 10}}}}
  - {{id: alone, targets: [{{backend: flaky, model: cheap}}], sessions: "off", retries: {{attempts: 1}}}}
  - {{id: backup, targets: [{{backend: good}}]}}
prices:
  flaky/fast: {{prompt: 0.15, cached_prompt: 0.0375, completion: 0.6}}
  flaky/cheap: {{prompt: 0.033, completion: 0.017}}
  flaky/cut: {{prompt: 0.7, completion: 0.9}}
  good: {{prompt: 3, completion: 15}}
limits: {{account: {{cost_per_month: 10}}}}
budgets: {{warn_at: [0.0001], webhook: {{url: "{webhook}", secret: "{secret}"}}}}
"""
MODELS = ("plain", "fails", "breaks", "slow", "alone")
COUNTS = ("attempts", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "nanos")


def flaky(numbers: Iterator[int], request: Received) -> Any:
    """Answers in the way that belongs to the model: in full, late, with a broken stream, with an error."""
    name, is_stream = request.json["model"], request.json.get("stream")
    if name == "gone" or (name == "cheap" and next(numbers) % 2):
        return Json({"error": {"message": "overloaded"}}, status=500)
    whole = list(vendor.text("Hello", " there", ".").events)
    if name == "cut" and is_stream:
        return Events([*whole[:3], Cut()])
    if name == "late" and is_stream:
        return Events([Delay(1), *whole])
    return Events(whole) if is_stream else vendor.complete_answer()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """The configuration of a store."""
    if request.param == "sqlite":
        yield ""
        return
    with serving() as server:
        yield f"store: {{kind: postgres, url: '{server.empty()}'}}\n"


@dataclass(frozen=True)
class Call:
    """A call: the requested model, its receipt, and whether it has failed."""

    model: str
    receipt: Receipt
    failed: bool

    def place(self) -> tuple[str, str]:
        """Returns the model and the target at which it is counted."""
        attempts = self.receipt.attempts
        done = [attempt for attempt in attempts if attempt.outcome == "completed"]
        return target(done[-1] if done else attempts[-1]) if attempts else (self.model, "")


def target(attempt: Attempt) -> tuple[str, str]:
    """Returns the model and the target of an attempt."""
    return attempt.model, f"{attempt.backend}/{attempt.target_model}".rstrip("/")


def call(chat: Any, parley: Parley, number: int) -> Call:
    """Makes one call, unary or streaming."""
    model = MODELS[number % 5]
    request = chat_request(model=model)
    method = chat.StreamChatCompletion if number % 2 else chat.CreateChatCompletion
    metadata = (("authorization", f"Bearer {parley.key}"),)
    failed = False
    try:
        if number % 2:
            running = method(request, metadata=metadata, timeout=30)
            list(running)
        else:
            _, running = method.with_call(request, metadata=metadata, timeout=30)
    except grpc.RpcError as error:
        running, failed = error, True
    receipt = dict(running.trailing_metadata()).get("parley-receipt-bin", b"")  # none without an attempt
    return Call(model, Receipt.FromString(receipt), failed)


def expected(calls: list[Call]) -> dict[tuple[str, str], Counter[str]]:
    """Sums up receipts by model and target."""
    sums: dict[tuple[str, str], Counter[str]] = {}
    for each in calls:
        assert not each.receipt.left_out
        for attempt in each.receipt.attempts:
            usage = attempt.usage
            details = usage.prompt_tokens_details.cached_tokens, usage.completion_tokens_details.reasoning_tokens
            numbers = (1, usage.prompt_tokens, usage.completion_tokens, *details, round(attempt.cost * 10**9))
            sums.setdefault(target(attempt), Counter()).update(dict(zip(COUNTS, numbers, strict=True)))
        sums.setdefault(each.place(), Counter()).update(calls=1, errors=each.failed)
    return {place: +counts for place, counts in sums.items()}


def counted(rows: list[dict[str, Any]]) -> dict[tuple[str, str], Counter[str]]:
    """Returns the rows of `parley usage --json` by model and target."""
    for row in rows:
        row["nanos"] = round(row.pop("cost") * 10**9)
    return {(row.pop("model"), row.pop("target")): +Counter(row) for row in rows}


def test_sums_are_those_of_the_receipts(store: str, tmp_path: Path) -> None:
    """After calls with retries, hedges, fallbacks, continuations and failures, every sum is that of the receipts.

    The report over REST has all calls soon. The command has them after Parley was stopped right after the last call.
    One of the workers sends one notification that the costs have reached a share of the limit.
    """
    with ScriptedUpstream() as bad, ScriptedUpstream() as good, receiving() as receiver:
        numbers = itertools.count()
        bad.default = lambda request: flaky(numbers, request)
        good.default = lambda request: vendor.text("Hi.") if request.json.get("stream") else vendor.complete_answer()
        config = tmp_path / "parley.yaml"
        config.write_text(CONFIG.format(flaky=bad.url, good=good.url, webhook=receiver.url, secret=SECRET) + store)
        with started("--config", str(config), "--workers", "2") as parley:
            calls = make_calls(parley, CALLS)
            report: dict[str, Any] = {}

            def is_counted() -> bool:
                report.update(parley.request("GET", "/v1/usage?by=model")[1])
                return bool(report["total"]["calls"] == CALLS)

            until(is_counted, "all calls are counted")
            until(lambda: receiver.received, "a notification")
            calls += make_calls(parley, 10)
            assert 0 == parley.stop()
            options = ("--state-dir", str(parley.folder / "state"), "--config", str(config))
            result = run_here("usage", "--json", "--by", "model", "--by", "target", *options)
    assert [("account", "default"), ("limit", "cost_per_month")] == list(receiver.received[0][1]["data"].items())[:2]
    assert 1 == len(receiver.received)
    kinds = {attempt.kind for each in calls for attempt in each.receipt.attempts}
    assert {"first", "fallback", "hedge", "continuation"} <= kinds
    assert 0 < sum(each.failed for each in calls) < len(calls)
    assert expected(calls) == counted(json.loads(result.stdout))
    early = sum(expected(calls[:CALLS]).values(), Counter())
    assert {name: early[name] for name in COUNTS[:5]} == {name: report["total"][name] for name in COUNTS[:5]}
    assert {*MODELS, "backup"} == {row["model"] for row in report["data"]}


def make_calls(parley: Parley, count: int) -> list[Call]:
    """Makes calls, several at a time."""
    with grpc.insecure_channel(parley.grpc) as channel, ThreadPoolExecutor(8) as pool:
        chat = ChatCompletionsStub(channel)
        return list(pool.map(lambda number: call(chat, parley, number), range(count)))
