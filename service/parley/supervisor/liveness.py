"""Tells a process that hangs from one that is slow or waits for a processor."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from parley.supervisor import ticks

_TICK_SECONDS = 0.5
_LATE_SECONDS = 1.5  # without an answer, after which the process is examined
_USED_CPU = 0.05  # the part of an interval above which a process counts as computing
_CLOCK_TICKS = 100.0  # of utime and stime, a second; Linux shows this number to all programs
_STOPS = {"T": "stopped by a signal", "t": "stopped by a debugger"}
_DISK = "D"


@dataclass(frozen=True, slots=True)
class HangLimits:
    """How long a process may leave its liveness checks unanswered, in seconds.

    Attributes:
        idle: While it uses no processor time, for example in a deadlock.
        stopped: While a signal or a debugger has stopped it.
        busy: While it computes, for example in a loop that never returns to its event loop.
    """

    idle: float = 5.0
    stopped: float = 3.0
    busy: float = 7.5

    @classmethod
    def of(cls, seconds: float) -> "HangLimits | None":
        """Returns the limits for a hang timeout; None for no limits if it is 0."""
        return cls(seconds, 0.6 * seconds, 1.5 * seconds) if seconds else None


DEFAULT_HANG_LIMITS = HangLimits()


@dataclass(frozen=True, slots=True)
class Sample:
    """The scheduling of a process so far.

    Attributes:
        state: The state of its main thread, as in /proc/PID/stat.
        cpu: Its processor time, in seconds.
        waited: For each thread, the seconds in which it could run and waited for a processor.
    """

    state: str
    cpu: float
    waited: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, pid: int) -> "Sample":
        """Reads /proc. Where there is none, returns a sample of a process that computes."""
        process = Path(f"/proc/{pid}")
        waited = {}
        for thread in process.glob("task/*"):
            with suppress(OSError, ValueError, IndexError):
                waited[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return cls("?", 0.0)
        return cls(fields[0], (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS, waited)


@dataclass(slots=True)
class HangClock:
    """Adds up the time in which a process could have answered and did not.

    The time for which one of its threads waits for a processor does not count, nor does the time for which this process
    itself does not run. So a busy or suspended machine lets no healthy process appear to hang.
    """

    limits: HangLimits
    idle: float = 0.0
    total: float = 0.0
    _last: Sample | None = None

    def reset(self) -> None:
        """Records an answer."""
        self.idle = self.total = 0.0
        self._last = None

    def add(self, seconds: float, sample: Sample) -> None:
        """Records an interval without an answer, and the sample at its end."""
        last, self._last = self._last, sample
        if last is None:
            return
        waited = max((time - last.waited.get(thread, time) for thread, time in sample.waited.items()), default=0.0)
        usable = max(0.0, min(seconds, 2 * _TICK_SECONDS) - waited)
        self.total += usable
        if sample.cpu - last.cpu < _USED_CPU * seconds and sample.state not in (_DISK, "?"):
            self.idle += usable

    def cause(self) -> str | None:
        """Returns what the process does instead of answering; None while it does not count as hanging."""
        stop = _STOPS.get(self._last.state) if self._last else None
        if stop and self.idle >= self.limits.stopped - _LATE_SECONDS:
            return stop
        if self.idle >= self.limits.idle - _LATE_SECONDS:
            return "it uses no processor time"
        return "it computes without a pause" if self.total >= self.limits.busy - _LATE_SECONDS else None


async def wait_hang(pid: int, answered: Callable[[], float], limits: HangLimits) -> str:
    """Waits until the process hangs. Returns what hangs, and for how long.

    Args:
        pid: The process.
        answered: Returns the time of its latest answer by the event loop's clock.
        limits: The limits.
    """
    now = asyncio.get_running_loop().time
    clock, last = HangClock(limits), now()
    while True:
        await ticks.pause(_TICK_SECONDS)
        seconds, last = now() - last, now()
        silence = last - answered()
        if silence < _LATE_SECONDS:
            clock.reset()
            continue
        clock.add(seconds, Sample.read(pid))
        if (cause := clock.cause()) is not None:
            return f"no answer for {silence:.1f} s, {cause}"
