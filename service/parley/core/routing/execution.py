"""The execution of one call: tries one target after another until one answers, and continues a broken stream."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from parley.config import Model
from parley.core.errors import DeadlineExceeded, ParleyError, UnsupportedParameter
from parley.core.messages import positions
from parley.core.messages.text_completion import TextCompletion
from parley.core.offload import is_large, offload
from parley.core.ports import UpstreamCall
from parley.core.ports.plain_text import Batch
from parley.core.routing import hedging
from parley.core.routing.active_attempt import ActiveAttempt, RejectedMode
from parley.core.routing.attempts import Attempt
from parley.core.routing.request import RequestBuilder
from parley.core.routing.retry_state import RetryState
from parley.core.routing.stream_support import may_be_streamed
from parley.core.routing.targets import Candidate
from parley.core.streaming import prefix
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.core.streaming.plain_text import parts
from parley.core.streaming.stitching import StitchedStream
from parley.core.usage import receipts
from parley.core.usage.attempts import AttemptKind, AttemptOutcome
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.receipt_pb2 import Receipt


class Execution:
    """The execution of one call.

    Args:
        retry_state: The state of the call's attempts.
        model: The requested model.
        builder: Builds the request to each target.

    Attributes:
        model_id: The model that answers: the requested one or a fallback. Fixed from the first chunk on for a streaming
            caller; it follows a restart otherwise.
        attempts: The records of the attempts so far.
    """

    __slots__ = (
        "_accumulator",
        "_builder",
        "_completion",
        "_model",
        "_retry_state",
        "_stitched",
        "attempts",
        "model_id",
    )

    def __init__(self, retry_state: RetryState, model: Model, builder: RequestBuilder) -> None:
        self.model_id = model.id
        self._retry_state = retry_state
        self.attempts: Sequence[Attempt] = retry_state.attempts
        self._model = model
        self._builder = builder
        self._accumulator: CompletionAccumulator | None = (
            None  # of an answer that is requested as a stream for a non-streaming caller
        )
        self._completion: ChatCompletion | None = None  # the answer of a target that cannot stream
        self._stitched: StitchedStream | None = None  # the stream so far

    def receipt(self) -> Receipt:
        """Returns the receipt of a call that has ended."""
        return Receipt.FromString(receipts.receipt(self.attempts, *receipts.settle(self.attempts)))

    def use_caller_positions(self, error: ParleyError) -> None:
        """Changes the error of an attempt to count the messages of the caller's request only."""
        for attempt in self.attempts:
            if attempt.error is error and not attempt.is_continuation:
                positions.use_caller_positions(error, self._builder.added_messages(attempt.call.request))

    @property
    def delivered_size(self) -> int:
        """The output so far in bytes; 0 for an answer that is not requested as a stream."""
        return self._stitched.delivered.size if self._stitched else 0

    async def complete(self) -> ChatCompletion | TextCompletion:
        """Returns the answer.

        Raises:
            ParleyError: No target has answered.
        """
        mode = self._model.whole_answers
        is_streamed = mode == "stream" or (mode == "auto" and self._retry_state.has_alternatives)
        if is_streamed and may_be_streamed(self._builder.request):  # so that it can be hedged and continued
            return await self._accumulate()
        attempt = await self._start_next(AttemptKind.FIRST)
        while True:
            record = attempt.record
            try:
                completion = await record.candidate.target.answer(record.call)
                if isinstance(completion, TextCompletion):  # most have a usage that is complete
                    record.usage = completion.usage
                else:
                    attempt.record_usage(completion)
            except BaseException as error:
                if not attempt.end_unstreamed(error):
                    raise
            else:
                attempt.end_unstreamed(None)
                self.model_id = record.model_id
                return completion
            attempt = await self._next_attempt(attempt)

    async def _accumulate(self) -> ChatCompletion:
        """Returns the answer, accumulated from a stream."""
        self._accumulator = CompletionAccumulator(ChatCompletion(model=self._model.id))
        self._retry_state.accepts_completion = True
        async with aclosing(self.stream()) as batches:
            async for batch in batches:
                for part in parts(batch):
                    self._accumulator.add(part)
        completion = self._accumulator.completion()
        if self._completion is None:
            completion.ClearField("model")  # only for errors of the accumulator; the answer's model is set later
            return completion
        if completion.HasField("usage"):
            self._completion.usage.CopyFrom(completion.usage)
        return self._completion

    async def stream(self) -> AsyncGenerator[Batch, None]:
        """Yields the parts of the answer as one stream, however many attempts it takes, in batches.

        Raises:
            ParleyError: No target has answered, or the stream broke and could not be continued: then the error that
                broke it first. A failure that ends the call at once (rejected content, the deadline) is raised as it
                is, also if it ends a continuation.
        """
        attempt = await self._open_stream()
        self.model_id = attempt.record.model_id
        stitched = self._stitched = StitchedStream(self._retry_state.attempts, attempt.record.call.request)
        while True:
            record = attempt.record
            try:
                async with attempt:
                    for part in attempt.take_head():
                        yield stitched.add(record, part)
                        del part  # a stream that waits keeps nothing of what it has sent
                    async for part in attempt.rest:
                        yield stitched.add(record, part)
                        del part
                    if rest := stitched.flush():
                        yield rest
            finally:
                stitched.estimate_usage(record)
            if record.outcome is AttemptOutcome.COMPLETED or stitched.delivered.is_complete:
                if record.estimated:
                    yield (stitched.usage_chunk(),)
                self._completion = attempt.completion
                return
            stitched.error = stitched.error or attempt.error
            attempt = await self._continue(stitched)

    async def _open_stream(self, stitched: StitchedStream | None = None) -> ActiveAttempt:
        """Opens a stream, or the rest of `stitched`, up to its first token; hedges it if the model is hedged."""
        hedge, retry_state = self._model.hedge, self._retry_state
        if hedge == "off" or not retry_state.has_alternatives:
            return await self._first_token_stream(AttemptKind.FIRST, stitched)
        after = None if hedge == "auto" else hedge
        return await hedging.race(
            lambda kind: self._first_token_stream(kind, stitched),
            lambda: retry_state.hedge_delay(after),
            retry_state.try_hedge,
        )

    async def _continue(self, stitched: StitchedStream) -> ActiveAttempt:
        """Opens the rest of a broken stream at another target.

        An answer without streaming may also restart, because its caller has received nothing yet.

        Raises:
            ParleyError: The error that first interrupted the stream, if no target can continue it.
        """
        error = stitched.error
        if error is None:
            raise RuntimeError("only a broken stream can be continued")
        if self._accumulator is None and not self._continuation_allowed(stitched):
            raise error
        try:
            attempt = await self._open_stream(stitched)
        except DeadlineExceeded:
            raise
        except ParleyError:
            raise error from None
        if self._accumulator is None or attempt.record.is_continuation:
            stitched.continue_with(attempt.record)
        else:
            stitched.restart()
            self.model_id = attempt.record.model_id
            self._accumulator = CompletionAccumulator(ChatCompletion(model=self._model.id))
        return attempt

    def _continuation_allowed(self, stitched: StitchedStream) -> bool:
        """Returns whether the model's configuration and the delivered answer allow that another target continues."""
        return self._model.on_stream_failure == "continue" and stitched.delivered.is_continuable

    async def _first_token_stream(self, kind: AttemptKind, stitched: StitchedStream | None = None) -> ActiveAttempt:
        """Tries one target after another until one has sent its first token."""
        attempt = await self._start_next(kind, stitched)
        while not await attempt.wait_first_token():
            attempt = await self._next_attempt(attempt, stitched)
        return attempt

    async def _next_attempt(self, previous: ActiveAttempt, stitched: StitchedStream | None = None) -> ActiveAttempt:
        """Starts what follows a failed attempt: the same target in another way or again, or the next target."""
        if previous.rejected_mode is not None:
            return await self._reissue(previous.record.candidate, previous.rejected_mode, stitched)
        if previous.retry_delay is not None:
            await asyncio.sleep(previous.retry_delay)
            record = previous.record
            retry = await ActiveAttempt.start(
                self._retry_state, record.candidate, record.call, AttemptKind.RETRY, record
            )
            if retry is not None:
                return retry
        return await self._start_next(AttemptKind.FALLBACK, stitched)

    async def _reissue(
        self, candidate: Candidate, rejected: RejectedMode, stitched: StitchedStream | None
    ) -> ActiveAttempt:
        """Calls a target without what it has rejected: without streaming, or without a prefill."""
        non_streaming = rejected is RejectedMode.STREAM
        kind = AttemptKind.RETRY if non_streaming else self._restart_kind
        call = await offload(self._builder.build, candidate)
        attempt = await ActiveAttempt.start(self._retry_state, candidate, call, kind, non_streaming=non_streaming)
        return attempt or await self._start_next(AttemptKind.FALLBACK, stitched)

    @property
    def _restart_kind(self) -> AttemptKind:
        """The kind of an attempt that answers from the beginning although a part of the answer exists."""
        return AttemptKind.SKIP_PREFIX if self._accumulator is None else AttemptKind.FALLBACK

    async def _start_next(self, kind: AttemptKind, stitched: StitchedStream | None = None) -> ActiveAttempt:
        """Starts an attempt at the next target that admits the call. Raises the call's final error if none does."""
        while True:
            candidate = self._retry_state.next_candidate()
            try:
                build = self._builder.build
                call = await offload(build, candidate) if is_large() else build(candidate)
            except UnsupportedParameter as error:
                self._retry_state.unsupported(error)
                continue
            non_streaming = self._accumulator is not None and not candidate.target.can_stream
            if stitched is not None:
                call, kind = self._prepare_continuation(stitched, candidate, call, non_streaming=non_streaming)
            attempt = await ActiveAttempt.start(self._retry_state, candidate, call, kind, non_streaming=non_streaming)
            if attempt is not None:
                return attempt

    def _prepare_continuation(
        self, stitched: StitchedStream, candidate: Candidate, call: UpstreamCall, *, non_streaming: bool
    ) -> tuple[UpstreamCall, AttemptKind]:
        """Adds the delivered text as a prefill if possible; otherwise the target answers from the beginning."""
        accepts_prefill = candidate.target.backend.supports_prefill and not non_streaming
        has_prefill = self._continuation_allowed(stitched) and stitched.delivered.usable_as_prefill(call.request)
        if accepts_prefill and has_prefill:
            request = CreateChatCompletionRequest()
            request.CopyFrom(call.request)
            prefix.append_prefill(request, stitched.delivered)
            return replace(call, request=request, has_prefill=True, shape=None), AttemptKind.CONTINUATION
        return call, self._restart_kind
