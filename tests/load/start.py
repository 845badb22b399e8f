"""The time from `parley up` to the first answer through Envoy, the CPU without calls, and the memory under load.

The store exists, there is one worker and no embedded model.
"""

import asyncio
import time
from dataclasses import dataclass
from statistics import median

from tests.load import accounting
from tests.load.client import RestCaller
from tests.load.load import drive
from tests.load.scenarios import PLANS, Scenario, callers_of, target
from tests.load.stack import Stack, parley, upstream

STARTS = 7
LOAD_SECONDS = 4.0
IDLE_SECONDS = 10.0
_SETTLE_SECONDS = 5.0  # after a call: its connections are kept, and its usage is written
_CALL = Scenario("unary", "rest", "off")


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the start of `parley up` to its first answer, the CPU milliseconds until then, and peak memory.

    `cpu_ms` is the median of the starts, with the preparation, which has ended. `idle_ms` is the CPU of a second
    without calls. The memory is the sum of each process's largest resident set in MB of 2²⁰ bytes, up to the end of a
    unary load; pages that processes share count in each of them.
    """

    scenario: str
    seconds: float
    seconds_rounds: list[float]
    cpu_ms: float
    cpu_ms_by_role: dict[str, float]
    idle_ms: float
    idle_ms_by_role: dict[str, float]
    rss_mb: float
    rss_mb_by_role: dict[str, float]
    yardstick_us: float


async def measure(*, quick: bool) -> Start:
    """Starts and stops Parley several times. Raises StackError, and the errors of a call."""
    seconds, spent = [], []
    idle: dict[str, float] = {}
    memory: dict[str, float] = {}
    with upstream() as source:
        for _ in range(STARTS // 2 if quick else STARTS):
            with parley(source.address, 1) as stack:
                seconds.append(await _first_answer(stack))
                used = accounting.spent({}, accounting.snapshot(stack.pid))
                spent.append(used | {"preparation": accounting.ended_ns(stack.pid)})
                idle = idle or await _idle(stack)
                memory = memory or await _peak_memory(stack)
    middle = sorted(spent, key=lambda by_role: sum(by_role.values()))[len(spent) // 2]
    return Start(
        scenario="start",
        seconds=round(median(seconds), 2),
        seconds_rounds=[round(value, 2) for value in seconds],
        cpu_ms=round(sum(middle.values()) / 1e6),
        cpu_ms_by_role={role: round(value / 1e6) for role, value in sorted(middle.items())},
        idle_ms=round(sum(idle.values()), 1),
        idle_ms_by_role={role: round(value, 1) for role, value in sorted(idle.items())},
        rss_mb=round(sum(memory.values()), 1),
        rss_mb_by_role={role: round(value, 1) for role, value in sorted(memory.items())},
        yardstick_us=round(accounting.yardstick()),
    )


async def _first_answer(stack: Stack) -> float:
    """Makes a call; returns the seconds since the start of the command."""
    caller = RestCaller(target(stack, _CALL))
    try:
        await caller.call()
        return time.monotonic() - stack.began
    finally:
        await caller.close()


async def _idle(stack: Stack) -> dict[str, float]:
    """Returns the CPU milliseconds of each role in a second without calls."""
    await asyncio.sleep(_SETTLE_SECONDS)
    before = accounting.snapshot(stack.pid)
    await asyncio.sleep(IDLE_SECONDS)
    used = accounting.spent(before, accounting.snapshot(stack.pid))
    return {role: value / 1e6 / IDLE_SECONDS for role, value in used.items()}


async def _peak_memory(stack: Stack) -> dict[str, float]:
    """Runs the unary load; returns the peak memory of each role in MB."""
    callers = callers_of("rest", target(stack, _CALL), PLANS["unary"].clients)
    try:
        await drive(callers, 1_000_000, LOAD_SECONDS)
    finally:
        for caller in callers:
            await caller.close()
    return accounting.peak_memory(stack.pid)
