"""One call on its course: asked of one target after another until it is answered, a broken stream to its end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from parley.config import Model
from parley.core.errors import ContentPolicy, DeadlineExceeded, ParleyError, UnsupportedParameter, UpstreamRejected
from parley.core.offload import offload
from parley.core.ports import UpstreamCall
from parley.core.routing import hedging, stream_support, upstream_stream
from parley.core.routing.attempts import Attempt
from parley.core.routing.retry_state import Course
from parley.core.routing.targets import Candidate
from parley.core.routing.upstream_stream import Asked
from parley.core.streaming import prefix
from parley.core.streaming.accumulator import AnswerJoiner
from parley.core.streaming.prefix import Misfit
from parley.core.streaming.stitching import Joint
from parley.core.usage import receipts
from parley.core.usage.attempts import Kind, Outcome
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.receipt_pb2 import Receipt

MakeCall = Callable[[Candidate], UpstreamCall]
"""Makes the request to a candidate, which is its own to change. Raises UnsupportedParameter."""


class Run:
    """The answer to one call of `model`. `model_id` is the id of the model that answers, once it has begun to.

    `may_stream` tells whether a stream can carry all that a whole answer has.
    """

    def __init__(self, course: Course, model: Model, make_call: MakeCall, *, may_stream: bool = True) -> None:
        self.model_id = model.id
        self._course = course
        self._model = model
        self._make_call = make_call
        self._may_stream = may_stream
        self._joiner: AnswerJoiner | None = None  # of a whole answer that is asked for as a stream
        self._completion: ChatCompletion | None = None  # a whole answer of a target that cannot stream

    def receipt(self) -> Receipt:
        """Returns the receipt, once the call is over."""
        return receipts.receipt(self._course.attempts)

    def causes(self) -> list[str | None]:
        """Returns for each attempt of the receipt what only the log may say of its failure."""
        return [attempt.error.cause if attempt.error else None for attempt in self._course.attempts]

    async def complete(self) -> ChatCompletion:
        """Returns the whole answer. Raises the ParleyError that the caller is told where nobody gives one."""
        if self._asks_for_stream():
            return await self._join()
        attempt = await self._next(Kind.FIRST)
        while True:
            try:
                completion = await upstream_stream.complete(self._course, attempt)
            except ParleyError as error:
                attempt = await self._after(attempt, error)
            else:
                self.model_id = attempt.candidate.model.id
                return completion

    def _asks_for_stream(self) -> bool:
        """Tells whether this whole answer is asked for as a stream, so that what protects streams protects it too."""
        wanted = self._model.whole_answers
        return self._may_stream and (self._course.has_choice if wanted == "auto" else wanted == "stream")

    async def _join(self) -> ChatCompletion:
        """Returns the whole answer that a stream makes."""
        self._joiner = AnswerJoiner(ChatCompletion(model=self._model.id))
        async with aclosing(self.stream()) as chunks:
            async for chunk in chunks:
                self._joiner.add(chunk)
        joined = self._joiner.completion()
        if self._completion is None:
            joined.ClearField("model")  # which is for the joiner's errors; the answer's own is set later
            return joined
        if joined.HasField("usage"):
            self._completion.usage.CopyFrom(joined.usage)
        return self._completion

    async def stream(self) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Yields the chunks of the answer, as one stream wherever they come from. Raises ParleyErrors."""
        asked = await self._open()
        self.model_id = asked.attempt.candidate.model.id
        joint = Joint(self._course.attempts, asked.attempt.call.request)
        while True:
            attempt = asked.attempt
            async with self._heard(asked, joint):
                for chunk in asked.head:
                    for new in joint.new(attempt, chunk):
                        yield new
                async for chunk in asked.rest:
                    for new in joint.new(attempt, chunk):
                        yield new
                for new in joint.end():
                    yield new
            if attempt.outcome is Outcome.COMPLETED or joint.delivered.is_whole:
                if attempt.estimated:
                    yield joint.bill()
                self._completion = asked.completion
                return
            asked = await self._go_on(joint)

    @asynccontextmanager
    async def _heard(self, asked: Asked, joint: Joint) -> AsyncIterator[None]:
        """Notes how an attempt ended that was listened to; swallows that it failed, unless that ends the call."""
        attempt = asked.attempt
        try:
            yield
            self._course.completed(attempt)
        except Misfit:
            self._course.left(attempt, Outcome.MISFIT)
        except ParleyError as error:
            joint.broken = joint.broken or error
            self._course.failed(attempt, error)
        finally:
            self._course.left(attempt)
            joint.settle(attempt)
            await asked.close()

    async def _open(self, joint: Joint | None = None) -> Asked:
        """Asks for a stream, or for the rest of one that has broken off, until somebody has said a token of it."""
        hedge, course = self._model.hedge, self._course
        if hedge == "off" or not course.has_choice:
            return await self._lane(Kind.FIRST, joint)
        after = None if hedge == "auto" else hedge
        return await hedging.race(
            lambda kind: self._lane(kind, joint), lambda: course.hedge_in(after), course.may_hedge
        )

    async def _go_on(self, joint: Joint) -> Asked:
        """Asks others for the rest of a stream that has broken off. Raises how it broke off where nobody has it.

        A whole answer can also be begun anew: its caller has nothing of it yet.
        """
        broken = joint.broken
        if broken is None:
            raise RuntimeError("a stream is gone on with that has not broken off")
        if self._joiner is None and not self._may_continue(joint):
            raise broken
        try:
            asked = await self._open(joint)
        except DeadlineExceeded:
            raise
        except ParleyError:
            raise broken from None
        if self._joiner is None or asked.attempt.resumes:
            joint.goes_on_with(asked.attempt)
        else:
            joint.begins_anew()
            self.model_id = asked.attempt.candidate.model.id
            self._joiner = AnswerJoiner(ChatCompletion(model=self._model.id))
        return asked

    def _may_continue(self, joint: Joint) -> bool:
        return self._model.on_stream_failure == "continue" and joint.delivered.is_joinable

    async def _lane(self, kind: Kind, joint: Joint | None = None) -> Asked:
        """Asks one target after another for a stream until one has said its first token."""
        attempt = await self._next(kind, joint)
        while True:
            asked = Asked(self._course, attempt)
            try:
                await asked.reach_token()
            except ParleyError as error:
                attempt = await self._after(attempt, error, joint)
            else:
                return asked

    async def _after(self, attempt: Attempt, error: ParleyError, joint: Joint | None = None) -> Attempt:
        """Begins what comes after a failure: the same target again, or the next one. Raises where there is nothing."""
        if self._joiner is not None and not attempt.whole and stream_support.cannot_stream(error):
            return await self._otherwise(attempt, error, Kind.RETRY, joint, asks_whole=True)
        if attempt.resumes and _refuses_to_continue(error):
            return await self._otherwise(attempt, error, self._from_the_beginning, joint)
        pause = self._course.failed(attempt, error)
        if pause is not None:
            await asyncio.sleep(pause)
            again = await upstream_stream.begin(self._course, attempt.candidate, attempt.call, Kind.RETRY, attempt)
            if again is not None:
                return again
        return await self._next(Kind.FALLBACK, joint)

    async def _otherwise(
        self, attempt: Attempt, error: ParleyError, kind: Kind, joint: Joint | None, *, asks_whole: bool = False
    ) -> Attempt:
        """Asks a target in another way that has refused the first one: from the beginning, or for a whole answer."""
        self._course.refused(attempt, error)
        call = await offload(self._make_call, attempt.candidate)
        again = await upstream_stream.begin(self._course, attempt.candidate, call, kind)
        if again is None:
            return await self._next(Kind.FALLBACK, joint)
        again.whole = asks_whole
        return again

    @property
    def _from_the_beginning(self) -> Kind:
        """Why a target is asked for all of an answer of which there is a part."""
        return Kind.SPLICE if self._joiner is None else Kind.FALLBACK

    async def _next(self, kind: Kind, joint: Joint | None = None) -> Attempt:
        """Begins an attempt at the next target that can be asked. Raises what the caller is told where none is left."""
        while True:
            candidate = self._course.next()
            try:
                call = await offload(self._make_call, candidate)
            except UnsupportedParameter as error:
                self._course.cannot(error)
                continue
            asks_whole = self._joiner is not None and not candidate.target.can_stream
            if joint is not None:
                call, kind = self._continuing(joint, candidate, call, asks_whole=asks_whole)
            attempt = await upstream_stream.begin(self._course, candidate, call, kind)
            if attempt is not None:
                attempt.whole = asks_whole
                return attempt

    def _continuing(
        self, joint: Joint, candidate: Candidate, call: UpstreamCall, *, asks_whole: bool
    ) -> tuple[UpstreamCall, Kind]:
        """Asks a target to go on from what was delivered, or from the beginning where it cannot."""
        may_continue = self._may_continue(joint) and candidate.target.backend.can_continue and not asks_whole
        if may_continue and joint.delivered.may_prefill(call.request):
            prefix.go_on(call.request, joint.delivered)
            return replace(call, continues=True), Kind.CONTINUATION
        return call, self._from_the_beginning


def _refuses_to_continue(error: ParleyError) -> bool:
    return isinstance(error, UpstreamRejected) and not isinstance(error, ContentPolicy)
