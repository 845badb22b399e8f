"""Faults: one `parley up` with a model and targets, whose breakers are their own, for each row and way to ask.

All rows are run at once, in the background, when the first test asks for one: nearly all that they do is wait.
"""

import socket
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any, NamedTuple

import pytest
import yaml

from tests.e2e.faults import calling, misbehaving
from tests.e2e.faults.calling import GRPC, REST, Outcome
from tests.e2e.faults.cases import CASES, SLOW, STREAMED, Case
from tests.e2e.faults.targets import Targets, running
from tests.processes import Parley, started
from tests.upstream import Answer, Received, ScriptedUpstream

# Rows without a slow target have long timeouts, which a busy machine does not reach; only a stream that stops has to.
TIMEOUTS = {"connect": "20s", "first_token": "20s", "stream_idle": "2s", "total": "20m"}
# An attempt that fails after more than 1.8 s is not retried.
SLOW_TIMEOUTS = {"connect": "1800ms", "first_token": "2s", "stream_idle": "2s", "total": "2m"}
# No fallback is slow or stops.
FALLBACK_TIMEOUTS = TIMEOUTS | {"stream_idle": "20s"}
AT_A_TIME = 12


class Trial(NamedTuple):
    """One row, asked in one way. `model` is the id that is asked for."""

    name: str
    way: str
    transport: str

    @property
    def case(self) -> Case:
        """The row."""
        return CASES[self.name]

    @property
    def model(self) -> str:
        """A model of the run's own."""
        return f"{self.name}, {self.way}, {self.transport}"


RUNS = [Trial(name, way, by) for (name, case), by in product(CASES.items(), (REST, GRPC)) for way in case.ways]


class Faults:
    """The running stack: what a row's callers got, and what its targets saw, in order."""

    def __init__(self, parley: Parley, seen: dict[str, list[Received]], pool: ThreadPoolExecutor) -> None:
        self.parley = parley
        self._seen = seen
        self._outcomes = {run: pool.submit(self._ask, run) for run in RUNS}

    def outcome(self, run: Trial) -> Outcome:
        """Waits for what the caller got."""
        return self._outcomes[run].result()

    def seen(self, run: Trial) -> list[Received]:
        """Returns the requests that the run's targets got."""
        return self._seen[run.model]

    def _ask(self, run: Trial) -> Outcome:
        asked = calling.body(run.model, is_stream=run.way == STREAMED, **run.case.asks)
        return calling.call(self.parley, run.transport, asked)


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """The stack, with everything running."""
    seen: dict[str, list[Received]] = defaultdict(list)
    file = tmp_path_factory.mktemp("faults") / "parley.yaml"
    with ScriptedUpstream() as upstream, socket.socket() as deaf, ThreadPoolExecutor(AT_A_TIME) as pool:
        deaf.bind(("127.0.0.1", 0))  # and does not listen
        upstream.default = lambda request: _answer(request, seen)
        file.write_text(yaml.safe_dump(_config(upstream.url, f"http://127.0.0.1:{deaf.getsockname()[1]}/v1")))
        with started("--config", str(file), "--workers", "1") as parley:
            yield Faults(parley, seen, pool)


def _answer(request: Received, seen: dict[str, list[Received]]) -> Answer:
    """Does what the row says of the target that is asked."""
    model, _, target = request.json["model"].rpartition("/")
    place = sum(earlier.json["model"] == request.json["model"] for earlier in seen[model])
    seen[model].append(request)
    scripts = getattr(CASES[model.rsplit(", ", 2)[0]], target)
    return misbehaving.in_order(scripts, request, place)


def _config(url: str, deaf: str) -> dict[str, Any]:
    backends, models = {}, []
    for number, run in enumerate(RUNS):
        case = run.case
        address = url if case.is_listening else deaf
        backends[f"b{number}"] = {"kind": "openai", "base_url": address}  # a pool of connections of its own
        backends[f"f{number}"] = {"kind": "openai", "base_url": url}
        targets = [{"backend": f"b{number}", "model": f"{run.model}/primary", "weight": 1e12}]
        if case.other:
            targets.append({"backend": f"f{number}", "model": f"{run.model}/other", "weight": 1e-12})
        model = {"id": run.model, "targets": targets, "timeouts": _timeouts(case), **case.options}
        if case.fallback:
            model["fallbacks"] = [f"{run.model}, fallback"]
            target = {"backend": f"f{number}", "model": f"{run.model}/fallback"}
            models.append({"id": f"{run.model}, fallback", "targets": [target], "timeouts": FALLBACK_TIMEOUTS})
        models.append(model)
    return {"backends": backends, "models": models}


def _timeouts(case: Case) -> dict[str, str]:
    return SLOW_TIMEOUTS if any(SLOW in tried for tried in case.tried) else TIMEOUTS


@pytest.fixture(scope="session")
def the_targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    """One stack for all tests that tell its targets what to do."""
    with running(tmp_path_factory.mktemp("targets")) as targets:
        yield targets


@pytest.fixture
def targets(the_targets: Targets) -> Targets:
    """The stack, as if new."""
    the_targets.reset()
    return the_targets
