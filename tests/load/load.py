"""Runs load clients and collects their results; each failed call is counted."""

import asyncio
import math
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from itertools import count as numbers

from tests.load.client import Caller, Timing

MOST_FAILURES = 20


@dataclass(slots=True)
class Outcome:
    """The results of a run: a Timing for each successful call, and a line for each failed one."""

    timings: list[Timing] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    async def record(self, call: Awaitable[Timing]) -> None:
        """Awaits a call and records its result."""
        try:
            self.timings.append(await call)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the call failed
            self.failures.append(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    @property
    def hopeless(self) -> bool:
        """Returns whether so many calls have failed that the run should end."""
        return len(self.failures) >= MOST_FAILURES


async def drive(callers: Sequence[Caller], calls: int, seconds: float, stagger: float = 0.0) -> Outcome:
    """Keeps every client busy until `calls` have been made in total, or `seconds` have passed.

    The start of the clients is spread over `stagger` seconds, so that paced streams are not in phase.
    """
    outcome, count = Outcome(), numbers()
    start = time.monotonic()

    async def client(caller: Caller, delay: float) -> None:
        if delay:
            await asyncio.sleep(delay)
        while next(count) < calls and time.monotonic() - start < seconds and not outcome.hopeless:
            await outcome.record(caller.call())

    await asyncio.gather(*(client(caller, stagger * index / len(callers)) for index, caller in enumerate(callers)))
    outcome.seconds = time.monotonic() - start
    return outcome


async def compare(callers: Sequence[Caller], turns: int, seconds: float, *, at_once: bool) -> list[Outcome]:
    """Makes the same call with every caller, in a rotating order or concurrently; returns their outcomes."""
    outcomes = [Outcome() for _ in callers]
    both = list(zip(outcomes, callers, strict=True))
    start = time.monotonic()
    for _ in range(turns):
        if time.monotonic() - start > seconds or any(outcome.hopeless for outcome in outcomes):
            break
        if at_once:
            await asyncio.gather(*(outcome.record(caller.call()) for outcome, caller in both))
        else:
            for outcome, caller in both:
                await outcome.record(caller.call())
        both.append(both.pop(0))
    return outcomes


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that `share` (0 to 1) of the values do not exceed; the values must not be empty."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
