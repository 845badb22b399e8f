"""Times out a streamed response that is silent for too long."""

import asyncio

from parley.backends.deadlines import TAIL_SECONDS, TICK, SilenceTimer
from parley.backends.http.body_shapes import Reader
from parley.backends.http.response import Response


class SilenceWatchdog:
    """Times out a response that is silent past a deadline; `expired` is then true.

    Each read moves the deadline; the timer is rescheduled only when it fires or the deadline moves forward. After a
    complete answer the timeout is `TAIL_SECONDS` from the latest bytes.
    """

    __slots__ = ("_loop", "_response", "_silence_timer", "_timer", "_until", "expired", "reader")

    def __init__(self, response: Response, reader: Reader, silence_timer: SilenceTimer, until: float) -> None:
        self.expired = False
        self._response = response
        self.reader = reader
        self._loop = asyncio.get_running_loop()
        self._silence_timer = silence_timer
        self._until = until
        self._timer = self._loop.call_at(min(until, silence_timer.since + TAIL_SECONDS), self._on_timer)

    def extend(self, until: float) -> None:
        """Sets the deadline after bytes have arrived; `until` is a time of the event loop's clock."""
        self._until = until
        if until < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(until, self._on_timer)

    def pause(self, until: float) -> None:
        """Suspends silence detection until `until`, while the consumer handles a chunk."""
        self._until = self._silence_timer.since = until

    def stop(self) -> None:
        """Cancels the timer."""
        self._timer.cancel()

    def _on_timer(self) -> None:
        now = self._loop.time() + TICK
        tail = self._silence_timer.since + TAIL_SECONDS
        self.expired = now >= self._until or (now >= tail and self.reader.is_complete)
        if self.expired:
            self._response.time_out()
        else:
            self._timer = self._loop.call_at(min(self._until, max(tail, now + TAIL_SECONDS)), self._on_timer)
