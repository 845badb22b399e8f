"""What Parley does without calls: how often its processes wake up."""

import re
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.processes import Parley

_SECONDS = 3.0
_PERIODS = 6
_WAKE_UPS = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)


def _wake_ups_a_second(roles: Mapping[int, str]) -> Counter[str]:
    """Returns how often the processes of each role wake up."""
    before = {pid: _wake_ups(pid) for pid in roles}
    time.sleep(_SECONDS)
    found: Counter[str] = Counter()
    for pid, role in roles.items():
        found[role] += round((_wake_ups(pid) - before[pid]) / _SECONDS)
    return found


def _wake_ups(pid: int) -> int:
    """Returns how often the threads of a process have slept so far."""
    return sum(int(_WAKE_UPS.findall(one.read_text())[0]) for one in Path(f"/proc/{pid}/task").glob("*/status"))


def test_an_idle_parley_wakes_up_rarely(stack: Parley) -> None:
    """No process has a timer that runs often, and checks of others share their times.

    A wake-up costs 0.1 ms of CPU. What is left of other tests adds to some of the periods, so that only an increase of
    all is found.
    """
    workers = stack.workers()
    [envoy] = [pid for pid, line in stack.children().items() if "envoy" in line.split()[0]]
    roles = {stack.process.pid: "supervisor", envoy: "envoy"} | dict.fromkeys(workers, "workers")
    # Three health checks of Envoy are most of a worker's.
    limits = {"supervisor": 8.0, "workers": 150.0 * len(workers), "envoy": 100.0}
    periods = []
    for _ in range(_PERIODS):
        periods.append(_wake_ups_a_second(roles))
        if all(periods[-1][role] < limit for role, limit in limits.items()):
            return
    pytest.fail(f"wake-ups a second: {periods}, more than {limits}")


def test_a_worker_behind_envoy_polls(stack: Parley) -> None:
    """Each message would otherwise wake a thread of gRPC as soon as Envoy has read it."""
    for pid in stack.workers():
        assert b"GRPC_POLL_STRATEGY=poll" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
