"""Deadlines of one call, and the error for the deadline that passed."""

import asyncio

from parley.backends.errors import classifier
from parley.core.errors import DeadlineExceeded, ParleyError
from parley.core.ports import UpstreamCall
from parley.core.ports.plain_text import PlainText, StreamPart
from parley.core.streaming.shaper import has_output

TICK = 0.01
"""Seconds by which a timer of the event loop may fire early: the resolution of its clock."""

TAIL_SECONDS = 10.0
"""Seconds that a stream stays open after the answer is complete, to receive the usage and the end of the stream."""

_NEVER = float("inf")


class Deadlines:
    """Deadlines of one call, as times of the event loop's clock.

    Attributes:
        end: Deadline of the call: `total`, or the caller's deadline if that is earlier.
    """

    __slots__ = ("_call", "_loop", "_start", "end")

    def __init__(self, call: UpstreamCall) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._start = now = self._loop.time()
        end = now + call.timeouts.total
        self.end = end if call.deadline is None else min(end, call.deadline)

    @property
    def first_token(self) -> float:
        """The deadline of the first token."""
        return min(self.end, self._start + self._call.timeouts.first_token)

    def remaining(self) -> float:
        """Returns the seconds until `end`, at least 0."""
        return max(0.0, self.end - self._loop.time())

    def connect_by(self) -> float:
        """Returns the deadline for a connection attempt that starts now."""
        return min(self.end, self._loop.time() + self._call.timeouts.connect)

    def next_bytes_by(self) -> float:
        """Returns the deadline for the next bytes of a response."""
        return min(self.end, self._loop.time() + self._call.timeouts.stream_idle)

    def exceeded(self, error: TimeoutError | None = None, *, started: bool = False) -> ParleyError:
        """Returns the error for the deadline that passed.

        Args:
            error: The timeout; its text becomes the cause.
            started: Whether the first token had arrived.

        Returns:
            DeadlineExceeded for the caller's deadline, else StreamBroken after the first token, else UpstreamTimeout.
        """
        if self._call.deadline is not None and self._loop.time() + TICK >= self._call.deadline:
            return DeadlineExceeded()
        model = self._call.request.model
        if started:
            return classifier.broken(model, "no bytes within `stream_idle`, no token within `stall`, or past `total`")
        return classifier.timed_out(model, str(error or "") or "no answer within `connect`, `first_token` or `total`")


class SilenceTimer:
    """Tracks how long a stream may stay silent: `first_token` before the first token, then `stream_idle` and `stall`.

    `stall` does not apply after a tool call, because an upstream may buffer its arguments.

    Attributes:
        started: Whether the first token has arrived.
    """

    __slots__ = ("_deadlines", "_loop", "_stall", "_stream_idle", "_token_by", "started")

    def __init__(self, call: UpstreamCall, deadlines: Deadlines) -> None:
        self.started = False
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self._stall = call.timeouts.stall
        self._stream_idle = call.timeouts.stream_idle
        self._token_by = _NEVER

    def record(self, part: StreamPart | None, *, started: bool = False, is_complete: bool = False) -> float:
        """Records the arrival of bytes and of the tokens in them.

        Args:
            part: The output parsed from the bytes, if any.
            started: Whether the answer has begun, even if the parser still holds back its first output.
            is_complete: Whether the answer is complete, so that only the usage and the end of the stream may follow.

        Returns:
            The deadline for the next bytes, as a time of the event loop's clock.
        """
        now = self._loop.time()
        self.started = self.started or started
        if isinstance(part, PlainText):
            self._token_by = now + self._stall
        elif part is not None:
            for choice in part.choices:
                delta = choice.delta
                if delta.content and not delta.tool_calls:
                    self.started, self._token_by = True, now + self._stall
                elif has_output(choice):
                    calls_a_tool = delta.tool_calls or delta.HasField("function_call")  # its arguments may be buffered
                    self.started, self._token_by = True, _NEVER if calls_a_tool else now + self._stall
        if self.started:
            until = min(self._deadlines.end, now + self._stream_idle, self._token_by)
        else:
            until = self._deadlines.first_token
        return min(until, now + TAIL_SECONDS) if is_complete else until
