"""CPU time of a tree of processes, from the kernel's scheduler, in nanoseconds.

The clock of a process (clock_getcpuclockid(3)) equals the sum of /proc/PID/task/*/schedstat, and includes threads that
have ended.
"""

import os
import re
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_PROCESS_CLOCK = 2  # CPUCLOCK_SCHED, see clock_getcpuclockid(3)
_PEAK = re.compile(r"VmHWM:\s*(\d+) kB")
_YARD = 20_000
_SYNCS = 40


class VanishedError(Exception):
    """A measured process has ended, and its CPU time is lost."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment: its role and its CPU time in nanoseconds."""

    role: str
    cpu_ns: int


def cpu_ns(pid: int) -> int:
    """Returns the CPU nanoseconds of a process, including ended threads. Raises VanishedError."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _PROCESS_CLOCK)
    except OSError as error:
        raise VanishedError(f"process {pid} has ended") from error


def ended_ns(pid: int) -> int:
    """Returns the CPU nanoseconds of a process's ended children, counted in ticks of usually 10 ms.

    A server with a process for each connection ends some of them between two measurements.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # cutime, cstime: proc(5)


def tree(root: int) -> list[int]:
    """Returns the process ids of a process and all its descendants."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)):
            children[parent].append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children[pid])
    return found


def _parent(entry: Path) -> int | None:
    """Returns the parent's process id; None if the process has ended."""
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


def role(pid: int, root: int) -> str:
    """Returns the role of a process of a stack: supervisor, envoy, or worker. The floor has no supervisor."""
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    if b"tests.load.floor" in command:
        return "worker"
    if pid == root or b"resource_tracker" in command:
        return "supervisor"
    return "envoy" if name.startswith("envoy") else "worker"


def snapshot(root: int) -> dict[int, Sample]:
    """Returns a sample of every process of the tree, by process id. Raises VanishedError if one ends meanwhile."""
    try:
        return {pid: Sample(role(pid, root), cpu_ns(pid)) for pid in tree(root)}
    except OSError as error:
        raise VanishedError(f"a process of {root}'s ended while it was read") from error


def spent(before: dict[int, Sample], after: dict[int, Sample]) -> dict[str, int]:
    """Returns the CPU nanoseconds between two snapshots by role. Raises VanishedError if a process is missing."""
    if missing := before.keys() - after.keys():
        raise VanishedError(f"ended during the measurement: {[(pid, before[pid].role) for pid in missing]}")
    total: dict[str, int] = defaultdict(int)
    for pid, sample in after.items():
        total[sample.role] += sample.cpu_ns - (before[pid].cpu_ns if pid in before else 0)
    return dict(total)


def peak_memory(root: int) -> dict[str, float]:
    """Returns the largest resident sets of a tree's processes, added up by role, in MB of 2²⁰ bytes."""
    total: dict[str, float] = defaultdict(float)
    for pid in tree(root):
        status = Path(f"/proc/{pid}/status").read_text()
        total[role(pid, root)] += int(_PEAK.search(status)[1]) / 1024  # type: ignore[index] # every process has one
    return dict(total)


def yardstick() -> float:
    """Returns the CPU microseconds of a fixed piece of work, a measure of the machine's current speed.

    Work on the other thread of the same core increases it up to twofold.
    """
    start = time.thread_time_ns()
    table: dict[int, str] = {}
    for number in range(_YARD):
        table[number % 1000] = str(number)
    return (time.thread_time_ns() - start) / 1e3


def disk_yardstick() -> float:
    """Returns the time of an fdatasync of 8 KiB in the temporary folder: the median of 40, in microseconds."""
    took = []
    with tempfile.TemporaryFile(prefix="parley-bench-") as file:
        for _ in range(_SYNCS):
            os.write(file.fileno(), bytes(8192))
            start = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter_ns() - start) / 1e3)
    return median(took)
