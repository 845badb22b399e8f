"""CPU time of a tree of processes, from the kernel's scheduler, in nanoseconds.

The clock of a whole process is read (clock_getcpuclockid(3)): the same count as /proc/PID/task/*/schedstat added up,
and the time of threads that have ended is still in it.
"""

import os
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_PROCESS_CLOCK = 2  # CPUCLOCK_SCHED, see clock_getcpuclockid(3)
_YARD = 20_000
_SYNCS = 40


class VanishedError(Exception):
    """A process that was being measured has ended, and its time with it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment: its role and the CPU nanoseconds it has used so far."""

    role: str
    cpu_ns: int


def cpu_ns(pid: int) -> int:
    """Reads the CPU nanoseconds of a process, all its threads, ended ones too. Raises VanishedError."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _PROCESS_CLOCK)
    except OSError as error:
        raise VanishedError(f"process {pid} has ended") from error


def tree(root: int) -> list[int]:
    """Lists the process and everything it started, directly or not."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)):
            children[parent].append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children[pid])
    return found


def _parent(entry: Path) -> int | None:
    """Reads the parent's id; None when the process has just ended."""
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


def role(pid: int, root: int) -> str:
    """Names what a process of the stack does: supervisor, envoy, or worker."""
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    if pid == root or b"resource_tracker" in words:
        return "supervisor"
    return "envoy" if name.startswith("envoy") else "worker"


def snapshot(root: int) -> dict[int, Sample]:
    """Reads every process of the tree, by its id. Raises VanishedError when one ends meanwhile."""
    try:
        return {pid: Sample(role(pid, root), cpu_ns(pid)) for pid in tree(root)}
    except OSError as error:
        raise VanishedError(f"a process of {root}'s ended while it was read") from error


def spent(before: dict[int, Sample], after: dict[int, Sample]) -> dict[str, int]:
    """Returns the CPU nanoseconds between two snapshots by role. Raises VanishedError when a process is missing."""
    if missing := before.keys() - after.keys():
        raise VanishedError(f"ended during the measurement: {[(pid, before[pid].role) for pid in missing]}")
    total: dict[str, int] = defaultdict(int)
    for pid, sample in after.items():
        total[sample.role] += sample.cpu_ns - (before[pid].cpu_ns if pid in before else 0)
    return dict(total)


def yardstick() -> float:
    """Times a fixed piece of work: its CPU microseconds tell how fast the machine is just now.

    A neighbour on the other thread of a core makes the same work take up to twice the CPU time.
    """
    start = time.thread_time_ns()
    places: dict[int, str] = {}
    for number in range(_YARD):
        places[number % 1000] = str(number)
    return (time.thread_time_ns() - start) / 1e3


def disk_yardstick() -> float:
    """Times an fdatasync of 8 KiB in the folder for temporary files: the median of 40, in microseconds."""
    took = []
    with tempfile.TemporaryFile(prefix="parley-bench-") as file:
        for _ in range(_SYNCS):
            os.write(file.fileno(), bytes(8192))
            start = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter_ns() - start) / 1e3)
    return median(took)
