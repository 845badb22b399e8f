"""One call on its course: asked of one target after another until it is answered, a broken stream to its end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from parley.config import Model
from parley.core.errors import ContentPolicy, DeadlineExceeded, ParleyError, UnsupportedParameter, UpstreamRejected
from parley.core.offload import offload
from parley.core.ports import UpstreamCall
from parley.core.routing import hedging, stream_support, upstream_stream
from parley.core.routing.attempts import Attempt
from parley.core.routing.request import RequestBuilder
from parley.core.routing.retry_state import RetryState
from parley.core.routing.targets import Candidate
from parley.core.routing.upstream_stream import UpstreamStream
from parley.core.streaming import prefix
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.core.streaming.prefix import PrefixMismatch
from parley.core.streaming.stitching import StitchedStream
from parley.core.usage import receipts
from parley.core.usage.attempts import AttemptKind, AttemptOutcome
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.receipt_pb2 import Receipt


class Execution:
    """The answer to one call of `model`. `model_id` is the id of the model that answers, once it has begun to.

    `streamable` tells whether a stream can carry all that a whole answer has.
    """

    def __init__(
        self, retry_state: RetryState, model: Model, builder: RequestBuilder, *, streamable: bool = True
    ) -> None:
        self.model_id = model.id
        self._retry_state = retry_state
        self._model = model
        self._builder = builder
        self._streamable = streamable
        self._accumulator: CompletionAccumulator | None = None  # of a whole answer that is asked for as a stream
        self._completion: ChatCompletion | None = None  # a whole answer of a target that cannot stream

    def receipt(self) -> Receipt:
        """Returns the receipt, once the call is over."""
        return receipts.receipt(self._retry_state.attempts)

    def failure_causes(self) -> list[str | None]:
        """Returns for each attempt of the receipt what only the log may say of its failure."""
        return [attempt.error.cause if attempt.error else None for attempt in self._retry_state.attempts]

    async def complete(self) -> ChatCompletion:
        """Returns the whole answer. Raises the ParleyError that the caller is told where nobody gives one."""
        if self._uses_stream():
            return await self._accumulate()
        attempt = await self._start_next(AttemptKind.FIRST)
        while True:
            try:
                completion = await upstream_stream.complete(self._retry_state, attempt)
            except ParleyError as error:
                attempt = await self._next_attempt(attempt, error)
            else:
                self.model_id = attempt.candidate.model.id
                return completion

    def _uses_stream(self) -> bool:
        """Tells whether this whole answer is asked for as a stream, so that what protects streams protects it too."""
        mode = self._model.whole_answers
        return self._streamable and (self._retry_state.has_alternatives if mode == "auto" else mode == "stream")

    async def _accumulate(self) -> ChatCompletion:
        """Returns the whole answer that a stream makes."""
        self._accumulator = CompletionAccumulator(ChatCompletion(model=self._model.id))
        async with aclosing(self.stream()) as chunks:
            async for chunk in chunks:
                self._accumulator.add(chunk)
        completion = self._accumulator.completion()
        if self._completion is None:
            completion.ClearField("model")  # which is for the joiner's errors; the answer's own is set later
            return completion
        if completion.HasField("usage"):
            self._completion.usage.CopyFrom(completion.usage)
        return self._completion

    async def stream(self) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Yields the chunks of the answer, as one stream wherever they come from. Raises ParleyErrors."""
        upstream = await self._open_stream()
        self.model_id = upstream.attempt.candidate.model.id
        stitched = StitchedStream(self._retry_state.attempts, upstream.attempt.call.request)
        while True:
            attempt = upstream.attempt
            async with self._recording(upstream, stitched):
                for chunk in upstream.head:
                    for output in stitched.add(attempt, chunk):
                        yield output
                async for chunk in upstream.rest:
                    for output in stitched.add(attempt, chunk):
                        yield output
                for output in stitched.flush():
                    yield output
            if attempt.outcome is AttemptOutcome.COMPLETED or stitched.delivered.is_complete:
                if attempt.estimated:
                    yield stitched.usage_chunk()
                self._completion = upstream.completion
                return
            upstream = await self._continue(stitched)

    @asynccontextmanager
    async def _recording(self, upstream: UpstreamStream, stitched: StitchedStream) -> AsyncIterator[None]:
        """Notes how an attempt ended that was listened to; swallows that it failed, unless that ends the call."""
        attempt = upstream.attempt
        try:
            yield
            self._retry_state.completed(attempt)
        except PrefixMismatch:
            self._retry_state.cancelled(attempt, AttemptOutcome.PREFIX_MISMATCH)
        except ParleyError as error:
            stitched.error = stitched.error or error
            self._retry_state.failed(attempt, error)
        finally:
            self._retry_state.cancelled(attempt)
            stitched.estimate_usage(attempt)
            await upstream.close()

    async def _open_stream(self, stitched: StitchedStream | None = None) -> UpstreamStream:
        """Asks for a stream, or for the rest of one that has broken off, until somebody has said a token of it."""
        hedge, retry_state = self._model.hedge, self._retry_state
        if hedge == "off" or not retry_state.has_alternatives:
            return await self._first_token_stream(AttemptKind.FIRST, stitched)
        after = None if hedge == "auto" else hedge
        return await hedging.race(
            lambda kind: self._first_token_stream(kind, stitched),
            lambda: retry_state.hedge_delay(after),
            retry_state.try_hedge,
        )

    async def _continue(self, stitched: StitchedStream) -> UpstreamStream:
        """Asks others for the rest of a stream that has broken off. Raises how it broke off where nobody has it.

        A whole answer can also be begun anew: its caller has nothing of it yet.
        """
        error = stitched.error
        if error is None:
            raise RuntimeError("a stream is gone on with that has not broken off")
        if self._accumulator is None and not self._may_continue(stitched):
            raise error
        try:
            upstream = await self._open_stream(stitched)
        except DeadlineExceeded:
            raise
        except ParleyError:
            raise error from None
        if self._accumulator is None or upstream.attempt.is_continuation:
            stitched.continue_with(upstream.attempt)
        else:
            stitched.restart()
            self.model_id = upstream.attempt.candidate.model.id
            self._accumulator = CompletionAccumulator(ChatCompletion(model=self._model.id))
        return upstream

    def _may_continue(self, stitched: StitchedStream) -> bool:
        return self._model.on_stream_failure == "continue" and stitched.delivered.is_continuable

    async def _first_token_stream(self, kind: AttemptKind, stitched: StitchedStream | None = None) -> UpstreamStream:
        """Asks one target after another for a stream until one has said its first token."""
        attempt = await self._start_next(kind, stitched)
        while True:
            upstream = UpstreamStream(self._retry_state, attempt)
            try:
                await upstream.wait_first_token()
            except ParleyError as error:
                attempt = await self._next_attempt(attempt, error, stitched)
            else:
                return upstream

    async def _next_attempt(
        self, attempt: Attempt, error: ParleyError, stitched: StitchedStream | None = None
    ) -> Attempt:
        """Begins what comes after a failure: the same target again, or the next one. Raises where there is nothing."""
        if self._accumulator is not None and not attempt.non_streaming and stream_support.cannot_stream(error):
            return await self._reissue(attempt, error, AttemptKind.RETRY, stitched, non_streaming=True)
        if attempt.is_continuation and _rejects_prefill(error):
            return await self._reissue(attempt, error, self._restart_kind, stitched)
        delay = self._retry_state.failed(attempt, error)
        if delay is not None:
            await asyncio.sleep(delay)
            retry = await upstream_stream.start_attempt(
                self._retry_state, attempt.candidate, attempt.call, AttemptKind.RETRY, attempt
            )
            if retry is not None:
                return retry
        return await self._start_next(AttemptKind.FALLBACK, stitched)

    async def _reissue(
        self,
        attempt: Attempt,
        error: ParleyError,
        kind: AttemptKind,
        stitched: StitchedStream | None,
        *,
        non_streaming: bool = False,
    ) -> Attempt:
        """Asks a target in another way that has refused the first one: from the beginning, or for a whole answer."""
        self._retry_state.prefill_rejected(attempt, error)
        call = await offload(self._builder.build, attempt.candidate)
        retry = await upstream_stream.start_attempt(self._retry_state, attempt.candidate, call, kind)
        if retry is None:
            return await self._start_next(AttemptKind.FALLBACK, stitched)
        retry.non_streaming = non_streaming
        return retry

    @property
    def _restart_kind(self) -> AttemptKind:
        """Why a target is asked for all of an answer of which there is a part."""
        return AttemptKind.SKIP_PREFIX if self._accumulator is None else AttemptKind.FALLBACK

    async def _start_next(self, kind: AttemptKind, stitched: StitchedStream | None = None) -> Attempt:
        """Begins an attempt at the next target that can be asked. Raises what the caller is told where none is left."""
        while True:
            candidate = self._retry_state.next_candidate()
            try:
                call = await offload(self._builder.build, candidate)
            except UnsupportedParameter as error:
                self._retry_state.unsupported(error)
                continue
            non_streaming = self._accumulator is not None and not candidate.target.can_stream
            if stitched is not None:
                call, kind = self._prepare_continuation(stitched, candidate, call, non_streaming=non_streaming)
            attempt = await upstream_stream.start_attempt(self._retry_state, candidate, call, kind)
            if attempt is not None:
                attempt.non_streaming = non_streaming
                return attempt

    def _prepare_continuation(
        self, stitched: StitchedStream, candidate: Candidate, call: UpstreamCall, *, non_streaming: bool
    ) -> tuple[UpstreamCall, AttemptKind]:
        """Asks a target to go on from what was delivered, or from the beginning where it cannot."""
        may_continue = self._may_continue(stitched) and candidate.target.backend.can_continue and not non_streaming
        if may_continue and stitched.delivered.can_prefill(call.request):
            prefix.append_prefill(call.request, stitched.delivered)
            return replace(call, is_continuation=True), AttemptKind.CONTINUATION
        return call, self._restart_kind


def _rejects_prefill(error: ParleyError) -> bool:
    return isinstance(error, UpstreamRejected) and not isinstance(error, ContentPolicy)
