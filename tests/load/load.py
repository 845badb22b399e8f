"""Runs load clients and collects what they saw; a call that fails is counted, never dropped."""

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
    """What a run of calls brought: a Timing for each that was right, a line for each that was not."""

    timings: list[Timing] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    async def take(self, call: Awaitable[Timing]) -> None:
        """Waits for a call and files it."""
        try:
            self.timings.append(await call)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the call failed
            self.failures.append(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    @property
    def hopeless(self) -> bool:
        """Tells whether it is time to give up."""
        return len(self.failures) >= MOST_FAILURES


async def drive(callers: Sequence[Caller], calls: int, seconds: float, stagger: float = 0.0) -> Outcome:
    """Keeps every client busy until `calls` have been made together, or no new one after `seconds`.

    The clients start spread over `stagger` seconds, so that paced streams do not tick together.
    """
    outcome, taken = Outcome(), numbers()
    start = time.monotonic()

    async def client(caller: Caller, delay: float) -> None:
        if delay:
            await asyncio.sleep(delay)
        while next(taken) < calls and time.monotonic() - start < seconds and not outcome.hopeless:
            await outcome.take(caller.call())

    await asyncio.gather(*(client(caller, stagger * place / len(callers)) for place, caller in enumerate(callers)))
    outcome.seconds = time.monotonic() - start
    return outcome


async def compare(
    through: Caller, direct: Caller, pairs: int, seconds: float, *, at_once: bool
) -> tuple[Outcome, Outcome]:
    """Makes the same call through Parley and directly, in turns (which is first alternates) or both at once."""
    outcomes = Outcome(), Outcome()
    start = time.monotonic()
    for number in range(pairs):
        if time.monotonic() - start > seconds or any(outcome.hopeless for outcome in outcomes):
            break
        both = [(outcomes[0], through), (outcomes[1], direct)][:: -1 if number % 2 else 1]
        if at_once:
            await asyncio.gather(*(outcome.take(caller.call()) for outcome, caller in both))
        else:
            for outcome, caller in both:
                await outcome.take(caller.call())
    return outcomes


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that `share` (0 to 1) of the values do not exceed; there must be one."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
