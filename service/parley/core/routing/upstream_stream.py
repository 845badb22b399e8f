"""One attempt at an answer: a place at its target, the request, and the words that come."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from parley.core.errors import ParleyError
from parley.core.ports import UpstreamCall
from parley.core.routing.attempts import Attempt
from parley.core.routing.retry_state import Course
from parley.core.routing.targets import Candidate
from parley.core.streaming.accumulator import cost
from parley.core.streaming.shaper import speaks
from parley.core.usage import cost as usage_cost
from parley.core.usage.attempts import Kind
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk


async def begin(
    course: Course, candidate: Candidate, call: UpstreamCall, kind: Kind, before: Attempt | None = None
) -> Attempt | None:
    """Begins an attempt as soon as its target has a place for it; None where it has none, or has failed meanwhile.

    `before` is the attempt that it repeats.
    """
    target = candidate.target
    if not await target.take_place(course.seconds(candidate.model.timeouts.connect)):
        course.is_full()
        return None
    attempt = None
    try:
        attempt = course.begin(candidate, call, kind, before)
    finally:
        if attempt is None:
            target.give_place()
    return attempt


async def complete(course: Course, attempt: Attempt) -> ChatCompletion:
    """Asks for a whole answer. Raises what the backend raises; the course is still to be told of a ParleyError."""
    target = attempt.candidate.target
    try:
        completion = await target.backend.complete(attempt.call)
    except ParleyError:
        raise
    except BaseException:
        course.left(attempt)
        raise
    else:
        _count(attempt, completion)
        course.completed(attempt)
        return completion
    finally:
        target.give_place()


def _count(attempt: Attempt, completion: ChatCompletion) -> None:
    """Notes what a whole answer cost; what its target has not reported is estimated."""
    attempt.usage = cost(completion)
    if not usage_cost.is_complete(attempt.usage):
        size = sum(usage_cost.size(choice.message) for choice in completion.choices)
        attempt.usage = usage_cost.completed(attempt.usage, attempt.call.request.messages, size)
        attempt.estimated = True
        completion.usage.CopyFrom(attempt.usage)


class Asked:
    """A stream that is asked for: its first words (`head`), then the `rest`.

    Where the attempt asks for a whole answer, that is the `completion`, and the only chunk has its end and its usage.
    """

    def __init__(self, course: Course, attempt: Attempt) -> None:
        self.attempt = attempt
        self.completion: ChatCompletion | None = None
        self.head: Sequence[ChatCompletionChunk] = ()
        self.rest = self._whole() if attempt.whole else attempt.candidate.target.backend.stream(attempt.call)
        self._course = course
        self._is_open = True

    async def reach_token(self) -> None:
        """Waits for the first token; `head` has what came with it and before.

        Raises what the backend raises, and has closed itself then; the course is still to be told of a ParleyError.
        """
        head = []
        seconds = self._course.late_in(self.attempt)
        loop = asyncio.get_running_loop()
        timer = None if seconds is None else loop.call_later(seconds, self._course.late, self.attempt)
        try:
            async for chunk in self.rest:
                head.append(chunk)
                if any(map(speaks, chunk.choices)):
                    if not self.attempt.whole:
                        self._course.began(self.attempt)
                    break
        except ParleyError:
            await self.close()
            raise
        except BaseException:
            await self.give_up()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        self.head = head

    async def give_up(self) -> None:
        """Ends the attempt, which nobody wants any more."""
        self._course.left(self.attempt)
        await self.close()

    async def close(self) -> None:
        """Closes the stream, and gives its place back."""
        if self._is_open:
            self._is_open = False
            try:
                await self.rest.aclose()
            finally:
                self.attempt.candidate.target.give_place()

    async def _whole(self) -> AsyncGenerator[ChatCompletionChunk, None]:
        self.completion = await self.attempt.candidate.target.backend.complete(self.attempt.call)
        self.attempt.candidate.target.refuses_streams()
        _count(self.attempt, self.completion)
        end = ChatCompletionChunk(usage=self.completion.usage)
        for choice in self.completion.choices:
            end.choices.add(index=choice.index, finish_reason=choice.finish_reason)
        yield end
