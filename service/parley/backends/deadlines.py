"""How long a call may take, and whose bound it was that passed."""

import asyncio

from parley.backends.errors import classifier
from parley.core.errors import DeadlineExceeded, ParleyError
from parley.core.ports import UpstreamCall
from parley.core.streaming.shaper import has_output
from parley.v1.chat_completions_pb2 import ChatCompletionChunk

TICK = 0.01
"""Seconds by which an event loop may be early: its clock's resolution."""

TAIL_SECONDS = 10.0
"""How long a stream stays open after the answer is complete, for the usage and the end of the stream."""

_NEVER = float("inf")


class Deadlines:
    """Until when one call may take: times of the event loop's clock."""

    __slots__ = ("_call", "_loop", "end", "first_token")

    def __init__(self, call: UpstreamCall) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        end = now + call.timeouts.total
        self.end = end if call.deadline is None else min(end, call.deadline)
        self.first_token = min(self.end, now + call.timeouts.first_token)

    def remaining(self) -> float:
        """How many seconds are left of the whole call."""
        return max(0.0, self.end - self._loop.time())

    def connect_by(self) -> float:
        """Until when there must be a connection, if it is begun now."""
        return min(self.end, self._loop.time() + self._call.timeouts.connect)

    def next_bytes_by(self) -> float:
        """Until when the next bytes of a stream must come."""
        return min(self.end, self._loop.time() + self._call.timeouts.stream_idle)

    def exceeded(self, error: TimeoutError | None = None, *, started: bool = False) -> ParleyError:
        """Returns the error for the bound that was passed: the caller's, ours, or in mid-answer."""
        if self._call.deadline is not None and self._loop.time() + TICK >= self._call.deadline:
            return DeadlineExceeded()
        model = self._call.request.model
        if started:
            return classifier.broken(model, "no bytes within `stream_idle`, no token within `stall`, or past `total`")
        return classifier.timed_out(model, str(error or "") or "no answer within `connect`, `first_token` or `total`")


class SilenceTimer:
    """Tracks until when a stream may stay silent: `first_token` at first, then both `stream_idle` and `stall`.

    `started` tells whether the first token has come, `since` when the latest bytes came. What has come may be held back
    for a while, as a tool call is whose name may not be complete: that is no stall.
    """

    __slots__ = ("_deadlines", "_loop", "_stall", "_stream_idle", "_token_by", "since", "started")

    def __init__(self, call: UpstreamCall, deadlines: Deadlines) -> None:
        self.started = False
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self._stall = call.timeouts.stall
        self._stream_idle = call.timeouts.stream_idle
        self._token_by = _NEVER
        self.since = self._loop.time()

    def record(self, chunk: ChatCompletionChunk | None, *, started: bool = False, is_complete: bool = False) -> float:
        """Notes that bytes have come, and the tokens in them; returns until when the next bytes must come.

        `started` tells that the answer has begun, even where nothing of it is in a chunk yet; `is_complete`, that it is
        complete, and only its usage and its end may follow.
        """
        self.since = now = self._loop.time()
        self.started = self.started or started
        if chunk is not None:
            for choice in chunk.choices:
                delta = choice.delta
                if delta.content and not delta.tool_calls:
                    self.started, self._token_by = True, now + self._stall
                elif has_output(choice):
                    calls_a_tool = delta.tool_calls or delta.HasField("function_call")  # its arguments may be buffered
                    self.started, self._token_by = True, _NEVER if calls_a_tool else now + self._stall
        if not self.started:
            return self._deadlines.first_token
        until = min(self._deadlines.end, now + self._stream_idle, self._token_by)
        return min(until, now + TAIL_SECONDS) if is_complete else until
