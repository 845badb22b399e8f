"""One attempt at an answer: a place at its target, the request, and the words that come."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from parley.core.errors import ParleyError
from parley.core.ports import UpstreamCall
from parley.core.routing.attempts import Attempt
from parley.core.routing.retry_state import RetryState
from parley.core.routing.targets import Candidate
from parley.core.streaming.accumulator import reported_usage
from parley.core.streaming.shaper import has_output
from parley.core.usage import cost as usage_cost
from parley.core.usage.attempts import AttemptKind
from parley.core.usage.tokens import output_size
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk


async def start_attempt(
    retry_state: RetryState,
    candidate: Candidate,
    call: UpstreamCall,
    kind: AttemptKind,
    previous: Attempt | None = None,
) -> Attempt | None:
    """Begins an attempt as soon as its target has a place for it; None where it has none, or has failed meanwhile.

    `previous` is the attempt that it repeats.
    """
    target = candidate.target
    if not await target.acquire_slot(retry_state.remaining_seconds(candidate.model.timeouts.connect)):
        retry_state.no_capacity()
        return None
    attempt = None
    try:
        attempt = retry_state.start_attempt(candidate, call, kind, previous)
    finally:
        if attempt is None:
            target.release_slot()
    return attempt


async def complete(retry_state: RetryState, attempt: Attempt) -> ChatCompletion:
    """Asks for a whole answer. Raises what the backend raises; the course is still to be told of a ParleyError."""
    target = attempt.candidate.target
    try:
        completion = await target.backend.complete(attempt.call)
    except ParleyError:
        raise
    except BaseException:
        retry_state.cancelled(attempt)
        raise
    else:
        _record_usage(attempt, completion)
        retry_state.completed(attempt)
        return completion
    finally:
        target.release_slot()


def _record_usage(attempt: Attempt, completion: ChatCompletion) -> None:
    """Notes what a whole answer cost; what its target has not reported is estimated."""
    attempt.usage = reported_usage(completion)
    if not usage_cost.is_complete(attempt.usage):
        size = sum(output_size(choice.message) for choice in completion.choices)
        attempt.usage = usage_cost.with_estimates(attempt.usage, attempt.call.request.messages, size)
        attempt.estimated = True
        completion.usage.CopyFrom(attempt.usage)


class UpstreamStream:
    """A stream that is asked for: its first words (`head`), then the `rest`.

    Where the attempt asks for a whole answer, that is the `completion`, and the only chunk has its end and its usage.
    """

    def __init__(self, retry_state: RetryState, attempt: Attempt) -> None:
        self.attempt = attempt
        self.completion: ChatCompletion | None = None
        self.head: Sequence[ChatCompletionChunk] = ()
        self.rest = self._complete() if attempt.non_streaming else attempt.candidate.target.backend.stream(attempt.call)
        self._retry_state = retry_state
        self._is_open = True

    async def wait_first_token(self) -> None:
        """Waits for the first token; `head` has what came with it and before.

        Raises what the backend raises, and has closed itself then; the course is still to be told of a ParleyError.
        """
        head = []
        seconds = self._retry_state.first_token_threshold(self.attempt)
        loop = asyncio.get_running_loop()
        timer = None if seconds is None else loop.call_later(seconds, self._retry_state.first_token_late, self.attempt)
        try:
            async for chunk in self.rest:
                head.append(chunk)
                if any(map(has_output, chunk.choices)):
                    if not self.attempt.non_streaming:
                        self._retry_state.first_token_received(self.attempt)
                    break
        except ParleyError:
            await self.close()
            raise
        except BaseException:
            await self.cancel()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        self.head = head

    async def cancel(self) -> None:
        """Ends the attempt, which nobody wants any more."""
        self._retry_state.cancelled(self.attempt)
        await self.close()

    async def close(self) -> None:
        """Closes the stream, and gives its place back."""
        if self._is_open:
            self._is_open = False
            try:
                await self.rest.aclose()
            finally:
                self.attempt.candidate.target.release_slot()

    async def _complete(self) -> AsyncGenerator[ChatCompletionChunk, None]:
        self.completion = await self.attempt.candidate.target.backend.complete(self.attempt.call)
        self.attempt.candidate.target.record_streams_unsupported()
        _record_usage(self.attempt, self.completion)
        end = ChatCompletionChunk(usage=self.completion.usage)
        for choice in self.completion.choices:
            end.choices.add(index=choice.index, finish_reason=choice.finish_reason)
        yield end
