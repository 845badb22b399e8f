"""A scripted backend: the fake at the port."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable

from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import Delta, Usage

USAGE = Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)


def completion(text: str) -> ChatCompletion:
    """Returns a complete answer as a backend returns it."""
    answer = ChatCompletion(usage=USAGE)
    choice = answer.choices.add(index=0, finish_reason="stop")
    choice.message.role = "assistant"
    choice.message.content.string_value = text
    return answer


def chunks(*texts: str) -> list[ChatCompletionChunk]:
    """Returns the chunks of an answer as a backend yields them."""
    made = []
    for text in texts:
        chunk = ChatCompletionChunk()
        chunk.choices.add(index=0, delta=Delta(content=text))
        made.append(chunk)
    made.append(ChatCompletionChunk(usage=USAGE))
    made[-1].choices.add(index=0, finish_reason="stop")
    return made


def split_completion(answer: ChatCompletion) -> list[ChatCompletionChunk]:
    """Returns the chunks of a complete answer as a backend yields them."""
    made = [ChatCompletionChunk() for _ in answer.choices]
    for chunk, choice in zip(made, answer.choices, strict=True):
        message = choice.message
        delta = Delta(content=message.content.string_value or None)
        for index, call in enumerate(message.tool_calls):
            piece = delta.tool_calls.add(index=index, id=call.id, type=call.type)
            piece.function.name, piece.function.arguments = call.function.name, call.function.arguments
        chunk.choices.add(index=choice.index, delta=delta, finish_reason=choice.finish_reason)
    return [*made, ChatCompletionChunk(usage=answer.usage if answer.HasField("usage") else None)]


class ScriptedBackend:
    """Answers with `answer(call)`: a completion, chunks, or an exception to raise. A stream may have a completion, too.

    A stream waits for a `threading.Event`-like gate among its chunks, and raises an exception among them. `calls` has
    the calls; `closed` is set when the caller ends a stream or call.
    """

    supports_prefill = True

    def __init__(self) -> None:
        self.answer: Callable[[UpstreamCall], object] = lambda _: completion("Hello")
        self.calls: list[UpstreamCall] = []
        self.closed = asyncio.Event()

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Returns the complete answer."""
        answer = await self._answer(call)
        assert isinstance(answer, ChatCompletion)
        return answer

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Yields the chunks."""
        try:
            answer = await self._answer(call)
            answer = split_completion(answer) if isinstance(answer, ChatCompletion) else answer
            assert isinstance(answer, Iterable)
            for item in answer:
                if isinstance(item, ChatCompletionChunk):
                    copy = ChatCompletionChunk()
                    copy.CopyFrom(item)
                    yield copy
                else:
                    await _obey(item)
        except (asyncio.CancelledError, GeneratorExit):
            self.closed.set()
            raise

    async def check(self) -> None:
        """Always succeeds."""

    async def close(self) -> None:
        """Does nothing."""

    async def _answer(self, call: UpstreamCall) -> object:
        self.calls.append(call)
        answer = self.answer(call)
        try:
            return answer if isinstance(answer, ChatCompletion | list) else await _obey(answer)
        except asyncio.CancelledError:
            self.closed.set()
            raise


async def _obey(item: object) -> object:
    if isinstance(item, BaseException):
        raise item
    assert isinstance(item, asyncio.Event)
    await item.wait()
    return completion("after the gate")
