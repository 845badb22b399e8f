"""How long a call may take, and whose bound it was that passed."""

import asyncio

from parley.backends import failures
from parley.core.errors import DeadlineExceeded, ParleyError
from parley.core.ports import UpstreamCall

TICK = 0.01
"""Seconds by which an event loop may be early: its clock's resolution."""


class Bounds:
    """Until when one call may take: times of the event loop's clock."""

    __slots__ = ("_call", "_loop", "end", "first_token")

    def __init__(self, call: UpstreamCall) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        end = now + call.timeouts.total
        self.end = end if call.deadline is None else min(end, call.deadline)
        self.first_token = min(self.end, now + call.timeouts.first_token)

    def left(self) -> float:
        """How many seconds are left of the whole call."""
        return max(0.0, self.end - self._loop.time())

    def connected(self) -> float:
        """Until when there must be a connection, if it is begun now."""
        return min(self.end, self._loop.time() + self._call.timeouts.connect)

    def next_bytes(self) -> float:
        """Until when the next bytes of a stream must come."""
        return min(self.end, self._loop.time() + self._call.timeouts.stream_idle)

    def exceeded(self, error: TimeoutError | None = None, *, started: bool = False) -> ParleyError:
        """Returns the error for the bound that was passed: the caller's, ours, or in mid-answer."""
        if self._call.deadline is not None and self._loop.time() + TICK >= self._call.deadline:
            return DeadlineExceeded()
        model = self._call.request.model
        if started:
            return failures.broken(model, "the stream fell silent, or took longer than `total`")
        return failures.timed_out(model, str(error or "") or "no answer within `connect`, `first_token` or `total`")
