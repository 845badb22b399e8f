"""Good calls at a steady rate, over REST and gRPC, and what became of them."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.load.client import Caller, RestCaller, Target
from tests.load.grpc_client import grpc_callers
from tests.load.load import percentile
from tests.load.stack import Stack, model_id

CLIENTS = 4
"""Clients of each protocol."""
INTERVAL_SECONDS = 0.08
"""From the start of one call of a client to the start of its next."""


@dataclass(slots=True)
class Phase:
    """The good calls of a time: their durations in seconds, the failures, and how long it lasted."""

    durations: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Returns the successful calls a second."""
        return len(self.durations) / self.seconds

    @property
    def p99_ms(self) -> float:
        """Returns the 99th percentile of the durations in milliseconds; infinite if no call succeeded."""
        return 1000 * percentile(self.durations, 0.99) if self.durations else float("inf")


class GoodCallers:
    """Clients with a valid key: half over REST, half over gRPC."""

    def __init__(self, stack: Stack) -> None:
        def target(address: str) -> Target:
            return Target(address, "/v1/chat/completions", model_id("unary", "off"), "unary", stack.key)

        rest = [RestCaller(target(stack.rest)) for _ in range(CLIENTS)]
        self._callers: Sequence[Caller] = [*rest, *grpc_callers(target(stack.grpc), CLIENTS)]

    async def measure(self, seconds: float) -> Phase:
        """Makes calls for some time. A client that waits for an answer starts no further call."""
        phase = Phase()
        start = time.monotonic()
        stagger = INTERVAL_SECONDS / len(self._callers)
        async with asyncio.TaskGroup() as group:
            for place, caller in enumerate(self._callers):
                group.create_task(_call(caller, phase, start + place * stagger, start + seconds))
        phase.seconds = time.monotonic() - start
        return phase

    async def close(self) -> None:
        """Closes the connections."""
        for caller in self._callers:
            await caller.close()


async def _call(caller: Caller, phase: Phase, due: float, end: float) -> None:
    """Makes calls at the interval until the end."""
    while due < end:
        await asyncio.sleep(due - time.monotonic())
        begun = time.monotonic()
        try:
            await caller.call()
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the call failed
            phase.failures.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        else:
            phase.durations.append(time.monotonic() - begun)
        due = max(due + INTERVAL_SECONDS, time.monotonic())
