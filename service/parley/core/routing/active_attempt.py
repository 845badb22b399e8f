"""An attempt in progress: the only owner of its slot, its permit and its upstream stream. It records its result."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from enum import Enum, auto
from types import TracebackType
from typing import Self

from parley.core.errors import ContentPolicy, ParleyError, UpstreamRejected
from parley.core.messages.text_completion import as_message
from parley.core.ports import UpstreamCall
from parley.core.ports.plain_text import PlainText, StreamPart
from parley.core.routing.attempts import Attempt
from parley.core.routing.retry_state import RetryState
from parley.core.routing.stream_support import cannot_stream
from parley.core.routing.targets import Candidate
from parley.core.streaming.accumulator import reported_usage
from parley.core.streaming.prefix import PrefixMismatch
from parley.core.streaming.shaper import has_output
from parley.core.usage import cost as usage_cost
from parley.core.usage.attempts import AttemptKind
from parley.core.usage.tokens import output_size
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk


class RejectedMode(Enum):
    """A way of calling a target that the target rejects, while it may accept the request in another way."""

    STREAM = auto()
    """The target cannot stream; it may answer without streaming."""
    PREFILL = auto()
    """The target cannot continue a partial answer; it may answer from the beginning."""


class ActiveAttempt:
    """Holds a slot of the target and a permit of its breaker until the attempt ends, and records exactly one result.

    The attempt ends at the end of its `async with` block: completed without an exception, else failed, prefix mismatch
    or cancelled. It ends earlier if `wait_first_token` fails, or with `cancel`. The block suppresses a failure after
    which the call may go on; `rejected_mode` and `retry_delay` then say how. A failure that ends the call is raised.

    Attributes:
        record: The attempt as the receipt and the next decisions see it.
        head: The chunks up to and including the first one with output or a finish reason.
        completion: The answer, if the attempt requests it without streaming. The only chunk then has its
            finish reasons and its usage.
        error: The failure that the backend raised.
        rejected_mode: The way of calling that the target rejected.
        retry_delay: After how many seconds the same target is retried; None for not at all.
    """

    __slots__ = (
        "_holds_slot",
        "_retry_state",
        "_stream",
        "completion",
        "error",
        "head",
        "record",
        "rejected_mode",
        "retry_delay",
    )

    def __init__(self, retry_state: RetryState, record: Attempt) -> None:
        self.record = record
        self.head: Sequence[StreamPart] = ()
        self.completion: ChatCompletion | None = None
        self.error: ParleyError | None = None
        self.rejected_mode: RejectedMode | None = None
        self.retry_delay: float | None = None
        self._retry_state = retry_state
        self._stream: AsyncGenerator[StreamPart, None] | None = None
        self._holds_slot = True

    @classmethod
    async def start(  # noqa: PLR0913 - what an attempt depends on
        cls,
        retry_state: RetryState,
        candidate: Candidate,
        call: UpstreamCall,
        kind: AttemptKind,
        previous: Attempt | None = None,
        *,
        non_streaming: bool = False,
    ) -> Self | None:
        """Acquires a slot, waiting for at most the model's connect timeout, and a permit.

        Args:
            retry_state: The state of the call.
            candidate: The target.
            call: The request.
            kind: Why the attempt is made.
            previous: The attempt that this one retries.
            non_streaming: Whether the answer is requested without streaming because the target cannot stream.

        Returns:
            The attempt; None if the target has no free slot, or its breaker has opened meanwhile.

        Raises:
            DeadlineExceeded: The caller's deadline has passed.
        """
        target = candidate.target
        seconds = candidate.model.timeouts.connect
        if not (target.has_no_slots or await target.acquire_slot(retry_state.remaining_seconds(seconds))):
            retry_state.no_capacity()
            return None
        if retry_state.trace is not None:
            call = replace(call, trace=retry_state.trace.start_attempt(target.backend_name))
        record = None
        try:
            record = retry_state.start_attempt(candidate, call, kind, previous)
        finally:
            if record is None:
                target.release_slot()
        if record is None:
            return None
        if non_streaming:
            record.non_streaming = True
        return cls(retry_state, record)

    async def __aenter__(self) -> Self:
        """Returns the attempt, which the block ends."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Ends the attempt. Returns whether the exception is suppressed."""
        return await self._end(error)

    def end_unstreamed(self, error: BaseException | None) -> bool:
        """Ends an attempt that has no stream, in place of the block. Returns whether the call may go on after `error`.

        Nothing needs to be waited for, so that a call without streaming is spared the coroutines of the block.
        """
        self._holds_slot = False
        target = self.record.candidate.target
        if not target.has_no_slots:
            target.release_slot()
        if error is None:
            self._retry_state.completed(self.record)
            return False
        return self._record_result(error)

    def record_usage(self, completion: ChatCompletion) -> None:
        """Records the usage of an answer without streaming; estimates what the target does not report."""
        attempt = self.record
        used = completion.usage
        if used.prompt_tokens and used.completion_tokens:  # nearly every answer
            attempt.usage = used
            return
        attempt.usage = reported_usage(completion)
        if not usage_cost.is_complete(attempt.usage):
            size = sum(output_size(choice.message) for choice in completion.choices)
            attempt.usage = usage_cost.with_estimates(attempt.usage, attempt.call.request.messages, size)
            attempt.estimated = True
            completion.usage.CopyFrom(attempt.usage)

    async def wait_first_token(self) -> bool:
        """Opens the stream and reads `head`.

        Returns:
            Whether the attempt is still active; False if it has failed and the call may go on.

        Raises:
            ParleyError: The attempt has failed and this ends the call.
        """
        try:
            await self._read_head()
        except BaseException as error:
            if await self._end(error):
                return False
            raise
        return True

    def take_head(self) -> Sequence[StreamPart]:
        """Removes and returns `head`."""
        head, self.head = self.head, ()
        return head

    @property
    def rest(self) -> AsyncGenerator[StreamPart, None]:
        """The parts after `head`."""
        if self._stream is None:
            raise RuntimeError("the stream is not open")
        return self._stream

    async def cancel(self) -> None:
        """Ends the attempt as cancelled, unless it has ended."""
        self._retry_state.cancelled(self.record)
        await self._release()

    async def _read_head(self) -> None:
        state, record = self._retry_state, self.record
        seconds = state.first_token_threshold(record)
        loop = asyncio.get_running_loop()
        timer = None if seconds is None else loop.call_later(seconds, state.first_token_late, record)
        head: list[StreamPart] = []
        self.head = head
        target = record.candidate.target
        self._stream = self._stream_completion() if record.non_streaming else target.backend.stream(record.call)
        try:
            async for part in self._stream:
                head.append(part)
                if isinstance(part, PlainText) or any(map(has_output, part.choices)):
                    if not record.non_streaming:
                        state.first_token_received(record)
                    break
        finally:
            if timer is not None:
                timer.cancel()

    async def _stream_completion(self) -> AsyncGenerator[ChatCompletionChunk, None]:
        target = self.record.candidate.target
        self.completion = as_message(await target.answer(self.record.call))
        self.record_usage(self.completion)
        target.record_streams_unsupported()
        end = ChatCompletionChunk(usage=self.completion.usage)
        for choice in self.completion.choices:
            end.choices.add(index=choice.index, finish_reason=choice.finish_reason)
        yield end

    async def _end(self, error: BaseException | None) -> bool:
        """Records the result and releases what the attempt holds. Returns whether the call may go on after `error`."""
        try:
            return self._record_result(error)
        finally:
            await self._release()

    def _record_result(self, error: BaseException | None) -> bool:
        if error is None:
            self._retry_state.completed(self.record)
            return False
        if isinstance(error, PrefixMismatch):
            self._retry_state.prefix_mismatched(self.record)
        elif isinstance(error, ParleyError):
            self._record_failure(error)
        else:
            self._retry_state.cancelled(self.record)
        return isinstance(error, PrefixMismatch | ParleyError)

    def _record_failure(self, error: ParleyError) -> None:
        self.error = error
        self.rejected_mode = self._mode_rejected_by(error)
        if self.rejected_mode is None:
            self.retry_delay = self._retry_state.failed(self.record, error)
        else:
            self._retry_state.mode_rejected(self.record, error)

    def _mode_rejected_by(self, error: ParleyError) -> RejectedMode | None:
        """Returns the way of calling that the target rejects; None after the first token, and for other failures."""
        if self.record.first_token is not None or self.record.non_streaming:
            return None
        if self._retry_state.accepts_completion and cannot_stream(error):
            return RejectedMode.STREAM
        is_rejection = isinstance(error, UpstreamRejected) and not isinstance(error, ContentPolicy)
        return RejectedMode.PREFILL if is_rejection and self.record.is_continuation else None

    async def _release(self) -> None:
        """Closes the stream and releases the slot, once."""
        if not self._holds_slot:
            return
        self._holds_slot = False
        try:
            if self._stream is not None:
                await self._stream.aclose()
        finally:
            self.record.candidate.target.release_slot()
