"""One call on its course: asked of one target after another until it is answered, a broken stream to its end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from parley.config import Model
from parley.core import asking, continuation, hedging, receipts
from parley.core.asking import Asked
from parley.core.attempts import Attempt, Kind, Outcome
from parley.core.continuation import Misfit
from parley.core.course import Course
from parley.core.errors import ContentPolicy, DeadlineExceeded, ParleyError, UnsupportedParameter, UpstreamRejected
from parley.core.joint import Joint
from parley.core.ports import UpstreamCall
from parley.core.targets import Candidate
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.receipt_pb2 import Receipt

MakeCall = Callable[[Candidate], UpstreamCall]
"""Makes the request to a candidate, which is its own to change. Raises UnsupportedParameter."""


class Run:
    """The answer to one call of `model`. `model_id` is the id of the model that answers, once it has begun to."""

    def __init__(self, course: Course, model: Model, make_call: MakeCall) -> None:
        self.model_id = model.id
        self._course = course
        self._model = model
        self._make_call = make_call

    def receipt(self) -> Receipt:
        """Returns the receipt, once the call is over."""
        return receipts.receipt(self._course.attempts)

    def causes(self) -> list[str | None]:
        """Returns for each attempt of the receipt what only the log may say of its failure."""
        return [attempt.error.cause if attempt.error else None for attempt in self._course.attempts]

    async def complete(self) -> ChatCompletion:
        """Returns the whole answer. Raises the ParleyError that the caller is told where nobody gives one."""
        attempt = await self._next(Kind.FIRST)
        while True:
            try:
                completion = await asking.complete(self._course, attempt)
            except ParleyError as error:
                attempt = await self._after(attempt, error)
            else:
                self.model_id = attempt.candidate.model.id
                return completion

    async def stream(self) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Yields the chunks of the answer, as one stream wherever they come from. Raises ParleyErrors."""
        asked = await self._open()
        self.model_id = asked.attempt.candidate.model.id
        joint = Joint(self._course, asked.attempt.call.request)
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

    async def _open(self) -> Asked:
        if self._model.hedge is None:
            return await self._lane(Kind.FIRST)
        return await hedging.race(self._lane, self._model.hedge, self._course.may_hedge)

    async def _go_on(self, joint: Joint) -> Asked:
        """Asks others for the rest of a stream that has broken off. Raises how it broke off where nobody has it."""
        broken = joint.broken
        if broken is None:
            raise RuntimeError("a stream is gone on with that has not broken off")
        if self._model.on_stream_failure == "fail" or not joint.delivered.is_joinable:
            raise broken
        try:
            asked = await self._lane(Kind.CONTINUATION, joint)
        except DeadlineExceeded:
            raise
        except ParleyError:
            raise broken from None
        joint.goes_on_with(asked.attempt)
        return asked

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
        if attempt.resumes and _refuses_to_continue(error):
            self._course.refused(attempt, error)
            call = self._make_call(attempt.candidate)
            again = await asking.begin(self._course, attempt.candidate, call, Kind.SPLICE)
            return again or await self._next(Kind.SPLICE, joint)
        pause = self._course.failed(attempt, error)
        if pause is not None:
            await asyncio.sleep(pause)
            again = await asking.begin(self._course, attempt.candidate, attempt.call, Kind.RETRY, attempt)
            if again is not None:
                return again
        return await self._next(Kind.FALLBACK, joint)

    async def _next(self, kind: Kind, joint: Joint | None = None) -> Attempt:
        """Begins an attempt at the next target that can be asked. Raises what the caller is told where none is left."""
        while True:
            candidate = self._course.next()
            try:
                call = self._make_call(candidate)
            except UnsupportedParameter as error:
                self._course.cannot(error)
                continue
            if joint is not None:
                call, kind = _continuing(joint, candidate, call)
            attempt = await asking.begin(self._course, candidate, call, kind)
            if attempt is not None:
                return attempt


def _continuing(joint: Joint, candidate: Candidate, call: UpstreamCall) -> tuple[UpstreamCall, Kind]:
    """Asks a target to go on from what was delivered, or from the beginning where it cannot."""
    if candidate.target.backend.can_continue and joint.delivered.may_prefill(call.request):
        continuation.go_on(call.request, joint.delivered)
        return replace(call, continues=True), Kind.CONTINUATION
    return call, Kind.SPLICE


def _refuses_to_continue(error: ParleyError) -> bool:
    return isinstance(error, UpstreamRejected) and not isinstance(error, ContentPolicy)
