"""A primary with an outage of a minute under constant traffic, in real time."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from tests.e2e.faults import calling
from tests.e2e.faults.calling import GRPC, REST
from tests.processes import Parley, started
from tests.upstream import ScriptedUpstream

OUTAGE = 60.0
MAY_TAKE = 30.0
"""Seconds after its return within which it must be used again."""
CALLERS = (REST, GRPC)
PAUSE = 0.4
"""Seconds between two calls of a caller: both together make about five a second."""


@dataclass(frozen=True)
class Call:
    """One call: its start, the model that answered, and the text; `failure` if it failed."""

    started: float
    model: str
    text: str
    failure: str


@dataclass
class Observation:
    """The calls of an outage, its start and end, and the times at which the primary refused connections."""

    calls: list[Call] = field(default_factory=list)
    interrupted_at: float = 0.0
    restored_at: float = 0.0
    refused_at: list[float] = field(default_factory=list)

    def used_again(self) -> float | None:
        """Returns the start of the first call that the primary answered after its return; None without one."""
        return next(
            (call.started for call in self.calls if call.started >= self.restored_at and call.model == "primary"), None
        )


def observe(workers: int, stop: threading.Event) -> Observation:
    """Runs the outage, which takes up to a minute and a half; `stop` ends it earlier."""
    seen = Observation()
    over = threading.Event()
    with (
        ScriptedUpstream() as primary,
        ScriptedUpstream() as healthy,
        TemporaryDirectory(prefix="parley-outage-") as folder,
    ):
        file = Path(folder) / "parley.yaml"
        file.write_text(yaml.safe_dump(_config(primary.url, healthy.url)))
        with started("--config", str(file), "--workers", str(workers)) as parley:
            callers = [threading.Thread(target=_keep_calling, args=(parley, by, seen.calls, over)) for by in CALLERS]
            for caller in callers:
                caller.start()
            try:
                _live_through(seen, primary, stop)
            finally:
                over.set()
                for caller in callers:
                    caller.join()
        seen.refused_at = primary.turned_away
    return seen


def _live_through(seen: Observation, primary: ScriptedUpstream, stop: threading.Event) -> None:
    primary.received()
    seen.interrupted_at = time.monotonic()
    primary.go_down()
    stop.wait(OUTAGE)
    primary.come_back()
    seen.restored_at = time.monotonic()
    while seen.used_again() is None and time.monotonic() < seen.restored_at + MAY_TAKE and not stop.wait(0.1):
        pass


def _keep_calling(parley: Parley, transport: str, calls: list[Call], over: threading.Event) -> None:
    """Makes one call after another, alternately streaming and unary."""
    is_stream = False
    while not over.wait(PAUSE):
        started, is_stream = time.monotonic(), not is_stream
        outcome = calling.call(parley, transport, calling.body("primary", is_stream=is_stream))
        failure = f"{outcome.reason}: {outcome.message}" if outcome.reason else ""
        calls.append(Call(started, outcome.model, outcome.texts.get(0, ""), failure))


def _config(primary: str, healthy: str) -> dict[str, object]:
    return {
        "backends": {
            "primary": {"kind": "openai", "base_url": primary},
            "healthy": {"kind": "openai", "base_url": healthy},
        },
        "models": [
            {"id": "primary", "targets": [{"backend": "primary"}], "fallbacks": ["backup"]},
            {"id": "backup", "targets": [{"backend": "healthy"}]},
        ],
    }
