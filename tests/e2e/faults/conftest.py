"""Fixtures of the fault tests: one `parley up` with a model and targets with separate breakers for each row and mode.

All rows run concurrently in the background from the first test that requires one, because they mostly wait.
"""

import socket
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any, NamedTuple

import pytest
import yaml

from tests.e2e.faults import calling
from tests.e2e.faults.calling import GRPC, REST, Outcome
from tests.e2e.faults.cases import SLOW, STREAMED, Case
from tests.e2e.faults.error_cases import ERRORS
from tests.e2e.faults.response_cases import RESPONSES
from tests.e2e.faults.scripts import script_at
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
CASES = ERRORS | RESPONSES


class Trial(NamedTuple):
    """One row in one mode. `model` is the requested model."""

    name: str
    mode: str
    transport: str

    @property
    def case(self) -> Case:
        """The row."""
        return CASES[self.name]

    @property
    def model(self) -> str:
        """The id of a model that only this run uses."""
        return f"{self.name}, {self.mode}, {self.transport}"


RUNS = [Trial(name, mode, by) for (name, case), by in product(CASES.items(), (REST, GRPC)) for mode in case.modes]


class Faults:
    """The running stack: the results of each row, and the requests at its targets, in order."""

    def __init__(self, parley: Parley, seen: dict[str, list[Received]], pool: ThreadPoolExecutor) -> None:
        self.parley = parley
        self._seen = seen
        self._outcomes = {run: pool.submit(self._call, run) for run in RUNS}

    def outcome(self, run: Trial) -> Outcome:
        """Waits for the result of a run."""
        return self._outcomes[run].result()

    def seen(self, run: Trial) -> list[Received]:
        """Returns the requests that the targets of a run have received."""
        return self._seen[run.model]

    def _call(self, run: Trial) -> Outcome:
        body = calling.body(run.model, is_stream=run.mode == STREAMED, **run.case.fields)
        return calling.call(self.parley, run.transport, body)


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """The stack, with all runs started."""
    seen: dict[str, list[Received]] = defaultdict(list)
    file = tmp_path_factory.mktemp("faults") / "parley.yaml"
    with ScriptedUpstream() as upstream, socket.socket() as closed, ThreadPoolExecutor(AT_A_TIME) as pool:
        closed.bind(("127.0.0.1", 0))  # without listening
        upstream.default = lambda request: _answer(request, seen)
        file.write_text(yaml.safe_dump(_config(upstream.url, f"http://127.0.0.1:{closed.getsockname()[1]}/v1")))
        with started("--config", str(file), "--workers", "1") as parley:
            yield Faults(parley, seen, pool)


def _answer(request: Received, seen: dict[str, list[Received]]) -> Answer:
    """Answers with the script of the row for the requested target."""
    model, _, target = request.json["model"].rpartition("/")
    index = sum(earlier.json["model"] == request.json["model"] for earlier in seen[model])
    seen[model].append(request)
    scripts = getattr(CASES[model.rsplit(", ", 2)[0]], target)
    return script_at(scripts, request, index)


def _config(url: str, closed: str) -> dict[str, Any]:
    backends, models = {}, []
    for number, run in enumerate(RUNS):
        case = run.case
        address = url if case.is_listening else closed
        backends[f"b{number}"] = {"kind": "openai", "base_url": address}  # a separate pool of connections
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
    """One stack for all tests that script their targets."""
    with running(tmp_path_factory.mktemp("targets")) as targets:
        yield targets


@pytest.fixture
def targets(the_targets: Targets) -> Targets:
    """The stack, reset."""
    the_targets.reset()
    return the_targets
