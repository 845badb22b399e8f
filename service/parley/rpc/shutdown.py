"""The steps in which a worker ends."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

GRACE_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class Shutdown:
    """Requests to end a worker.

    Attributes:
        leave: Report NOT_SERVING to callers, and serve on: the pod is about to end.
        report_idle: Call `on_idle` as soon as no call runs; may be set again after each report.
        stop: End when running calls have finished.
        cut: End running calls with an error; set after `leave` or `stop`.
        grace: How many seconds running calls may take to finish after `stop`; none after `leave`.
        replaced: Whether another worker has taken over all new calls.
        on_idle: See `report_idle`.
    """

    leave: asyncio.Event = field(default_factory=asyncio.Event)
    report_idle: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    grace: float = GRACE_SECONDS
    replaced: bool = False
    on_idle: Callable[[], None] = lambda: None

    def is_begun(self) -> bool:
        """Returns whether the worker is leaving, or ends when its calls have finished."""
        return self.leave.is_set() or self.stop.is_set()
