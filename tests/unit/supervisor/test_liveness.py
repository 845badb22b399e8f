"""Hanging processes: the clock that tells them from busy ones, and their replacement."""

import asyncio
import os
import signal
import sys

import pytest

from parley.supervisor.liveness import HangClock, HangLimits, Sample
from tests.unit.supervisor.test_process import Script, _runs

LIMITS = HangLimits(idle=5, stopped=3, busy=7.5)
TICK = 0.5


def _clock(seconds: float, *, state: str = "S", cpu: float = 0.0, waited: float = 0.0, tick: float = TICK) -> HangClock:
    """Returns a clock after a silence; in each second, the process used `cpu` and waited `waited` seconds."""
    clock = HangClock(LIMITS)
    for number in range(int(seconds / tick) + 1):
        time = number * tick
        clock.add(tick, Sample(state, cpu * time, {"1": 0.0, "2": waited * time}))
    return clock


@pytest.mark.parametrize(
    ("clock", "cause"),
    [
        (_clock(1, state="T"), None),
        (_clock(2, state="T"), "stopped by a signal"),
        (_clock(2, state="t"), "stopped by a debugger"),
        (_clock(3), None),
        (_clock(4), "it uses no processor time"),
        (_clock(5, cpu=1), None),
        (_clock(6.5, cpu=1), "it computes without a pause"),
        (_clock(5, state="D"), None),
    ],
)
def test_what_a_silent_process_does_decides_how_long_it_may_take(clock: HangClock, cause: str | None) -> None:
    """A stopped or idle process counts as hanging sooner than one that computes or waits for a disk."""
    assert cause == clock.cause()


def test_a_process_that_waits_for_a_processor_does_not_hang() -> None:
    """On an overloaded machine a thread of a healthy process is ready to run nearly all of the time."""
    assert _clock(30, cpu=0.1, waited=0.9).cause() is None


def test_a_supervisor_that_did_not_run_counts_little() -> None:
    """After a pause of an hour, for example of a container, a process has a few seconds to answer."""
    clock = _clock(3600, tick=3600)
    assert (1.0, None) == (clock.idle, clock.cause())


def test_an_answer_resets_the_clock() -> None:
    """Only a continuous silence counts."""
    clock = _clock(3)
    clock.reset()
    assert (0.0, 0.0) == (clock.idle, clock.total)


class Answering(Script):
    """A script whose lines are its answers to liveness checks."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._hang_limits = HangLimits(idle=3.5, stopped=2, busy=60)

    def _on_line(self, line: str) -> None:
        super()._on_line(line)
        self.record_answer()


async def test_a_stopped_child_is_killed_and_replaced(capfd: pytest.CaptureFixture[str]) -> None:
    """SIGSTOP is noticed, logged with its duration, and ended by SIGKILL, which SIGTERM would not do."""
    child = Answering("echo ready; while :; do echo alive; sleep 0.1; done")
    await child.start()
    first = await child.ups.get()
    os.kill(first, signal.SIGSTOP)
    second = await asyncio.wait_for(child.ups.get(), 60)
    assert first != second
    assert not _runs(first)
    await child.stop(5)
    assert "parley: the script hangs (no answer for " in (log := capfd.readouterr().err)
    assert "s, stopped by a signal); it is killed\n" in log


async def test_a_child_in_a_deadlock_is_replaced() -> None:
    """A process that neither answers nor computes is replaced; one that answers is left alone meanwhile."""
    loop = "import time\nwhile not print(1, flush=True): time.sleep(0.1)"  # one process: a shell would wait for `sleep`
    hanging = Answering("echo ready; exec sleep 1000")
    healthy = Answering(f"echo ready; exec {sys.executable} -c '{loop}'")
    await asyncio.gather(hanging.start(), healthy.start())
    first = await hanging.ups.get()
    assert first != await asyncio.wait_for(hanging.ups.get(), 60)
    assert ["up"] == healthy.events
    await asyncio.gather(hanging.stop(5), healthy.stop(5))


async def test_a_child_that_computes_is_left_alone() -> None:
    """A process that does not answer while it computes is not killed before its own limit."""
    computing = Answering(f"echo ready; exec {sys.executable} -c 'while True: pass'")
    idle = Answering("echo ready; exec sleep 1000")
    await asyncio.gather(computing.start(), idle.start())
    await idle.ups.get()
    await asyncio.wait_for(idle.ups.get(), 60)  # by now, the computing one has been silent for as long
    assert ["up"] == computing.events
    await asyncio.gather(computing.stop(5), idle.stop(5))
