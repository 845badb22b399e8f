"""The faults of the benchmark at default settings: the caller's result, and the requests at each upstream.

S15 is in tests/e2e/test_target_outage.py. All calls run concurrently in the background, because they mostly wait.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from typing import Any, NamedTuple

import pytest
import yaml

from tests.e2e.faults import calling
from tests.e2e.faults.benchmark import FAULTS, WITHIN, ExpectedError, Fault
from tests.e2e.faults.calling import GRPC, REST, Outcome
from tests.e2e.faults.scripts import prefill_text, script_at
from tests.processes import started
from tests.upstream import Answer, Received, ScriptedUpstream


class Trial(NamedTuple):
    """A fault in one mode."""

    name: str
    streamed: bool
    transport: str
    alone: bool

    @property
    def fault(self) -> Fault:
        """The row."""
        return FAULTS[self.name]

    @property
    def model(self) -> str:
        """The id of a model that only this run uses."""
        mode = "streamed" if self.streamed else "unary"
        return (
            f"{self.name} {self.fault.title}, {mode}, {self.transport}, {'alone' if self.alone else 'with a fallback'}"
        )

    def script(self, target: str, index: int, request: Received) -> Answer:
        """Answers as a target of the run."""
        fault = self.fault
        scripts = fault.slow_alone if self.alone and fault.slow_alone else fault.primary
        return script_at(scripts if target == "primary" else [fault.fallback], request, index)


RUNS = {
    run.model: run
    for name, streamed, by, alone in product(FAULTS, (True, False), (REST, GRPC), (False, True))
    if (run := Trial(name, streamed, by, alone)) and not (alone and FAULTS[name].alone is None)
}


class TimedCall(NamedTuple):
    """The result of a call, and its duration in seconds."""

    outcome: Outcome
    seconds: float


class Benchmark:
    """The running stack: the results of the calls, and the requests at each upstream with their times."""

    def __init__(self, calls: dict[str, Future[TimedCall]], seen: dict[str, list[tuple[float, Received]]]) -> None:
        self._calls = calls
        self._seen = seen

    def result(self, run: Trial) -> TimedCall:
        """Waits for the result of a run."""
        return self._calls[run.model].result()

    def seen(self, run: Trial, target: str) -> list[tuple[float, Received]]:
        """Returns the requests that a target has received."""
        return self._seen[f"{run.model}/{target}"]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Benchmark]:
    """The stack, with every fault started."""
    seen: dict[str, list[tuple[float, Received]]] = defaultdict(list)

    def answer(request: Received) -> Answer:
        name = request.json["model"]
        model, _, target = name.rpartition("/")
        seen[name].append((time.monotonic(), request))
        return RUNS[model].script(target, len(seen[name]) - 1, request)

    file = tmp_path_factory.mktemp("benchmark") / "parley.yaml"
    with ScriptedUpstream() as upstream, ThreadPoolExecutor(len(RUNS)) as pool:
        upstream.default = answer
        file.write_text(yaml.safe_dump(_config(upstream.url)))
        with started("--config", str(file), "--workers", "1") as parley:

            def call(run: Trial) -> TimedCall:
                started = time.monotonic()
                outcome = calling.call(parley, run.transport, calling.body(run.model, is_stream=run.streamed))
                return TimedCall(outcome, time.monotonic() - started)

            yield Benchmark({run.model: pool.submit(call, run) for run in RUNS.values()}, seen)


def _config(url: str) -> dict[str, Any]:
    backends: dict[str, Any] = {}
    models: list[dict[str, Any]] = []
    for number, run in enumerate(RUNS.values()):
        backends[f"b{number}"] = {"kind": "openai", "base_url": url}
        model = {"id": run.model, "targets": [{"backend": f"b{number}", "model": f"{run.model}/primary"}]}
        if run.alone:
            model |= run.fault.options
        else:
            model["fallbacks"] = [f"{run.model}, fallback"]
            target = {"backend": f"b{number}", "model": f"{run.model}/fallback"}
            models.append({"id": f"{run.model}, fallback", "targets": [target]})
        models.append(model)
    return {"backends": backends, "models": models}


every_run = pytest.mark.parametrize("run", RUNS.values(), ids=lambda run: run.model)


@every_run
def test_the_result_is_complete_or_an_error(benchmark: Benchmark, run: Trial) -> None:
    """The result is a complete answer or an error within `WITHIN`, never a partial answer without an error."""
    outcome, seconds = benchmark.result(run)
    fault = run.fault
    expected = fault.alone[run.streamed] if run.alone and fault.alone else fault.expected
    text = outcome.texts.get(0, "")
    if isinstance(expected, ExpectedError):
        assert expected.reason in {(outcome.reason or "").upper(), _REASONS.get(outcome.reason or "")}
        assert (expected.delivered if run.streamed else "", False) == (text, outcome.is_ended)
    else:
        assert (None, expected, ["stop"]) == (outcome.reason, text, outcome.finishes)
        assert outcome.total_tokens > 0, "S11: usage is reported"
    assert seconds < WITHIN


_REASONS = {"rate_limit_exceeded": "UPSTREAM_RATE_LIMITED", "content_policy_violation": "CONTENT_POLICY"}


@every_run
def test_the_number_of_requests_at_each_upstream(benchmark: Benchmark, run: Trial) -> None:
    """A silent or rejecting target is not retried, and others are retried after a delay."""
    benchmark.result(run)
    fault = run.fault
    primary, fallback = benchmark.seen(run, "primary"), benchmark.seen(run, "fallback")
    expected = (fault.alone[2], 0) if run.alone and fault.alone else fault.requests
    if run.name == "S14" and not run.alone:
        assert [True, False] == [bool(prefill_text(request)) for _, request in fallback]
    assert expected == (len(primary), len(fallback))
    if len(primary) > 1:
        assert primary[1][0] - primary[0][0] >= fault.gap


@pytest.mark.parametrize("run", [run for run in RUNS.values() if run.name == "S16"], ids=lambda run: run.model)
def test_s16_the_answer_names_the_model_that_gave_it(benchmark: Benchmark, run: Trial) -> None:
    """The answer has its model, its usage, and a receipt of all attempts."""
    outcome = benchmark.result(run).outcome
    assert f"{run.model}, fallback" == outcome.model
    assert 12 == outcome.total_tokens
    assert outcome.receipt is not None
    assert ["failed"] * 3 + ["completed"] == [attempt.outcome for attempt in outcome.receipt.attempts]
    assert 12 == outcome.receipt.usage.total_tokens
