"""Two backends and the calls of a model, in virtual time."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from parley.config.loader import parse
from parley.core.errors import ParleyError, UpstreamTimeout, UpstreamUnavailable
from parley.core.messages.text_completion import as_message
from parley.core.ports import UpstreamCall
from parley.core.routing.router import Router
from parley.core.streaming.plain_text import as_chunk, parts
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from tests.rpc.scripted import chunks
from tests.unit.routing.routes import new_execution

CONFIG = """
backends:
  a: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
  b: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
models:
  - {id: m, targets: [{backend: a}], fallbacks: [spare]}
  - {id: spare, targets: [{backend: b}]}
  - {id: alone, targets: [{backend: a}]}
  - {id: unhedged, targets: [{backend: a}], fallbacks: [spare], hedge: off}
"""
FIRST_TOKEN = 120.0


class Backend:
    """Sends its name after `seconds`, times out past `first_token`, and fails while `is_down`."""

    supports_prefill = True

    def __init__(self, name: str, seconds: float = 0.3) -> None:
        self.name = name
        self.seconds: Callable[[], float] = lambda: seconds
        self.is_down = False
        self.called: list[float] = []
        self.open = 0
        self.most_open = 0

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Fails: all models of the test use streams."""
        raise AssertionError

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Answers as scripted."""
        self.called.append(asyncio.get_running_loop().time())
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.is_down:
                raise UpstreamUnavailable("not available")
            seconds = self.seconds()
            await asyncio.sleep(min(seconds, FIRST_TOKEN))
            if seconds > FIRST_TOKEN:
                raise UpstreamTimeout("no first token")
            for chunk in chunks(self.name):
                yield chunk
        finally:
            self.open -= 1

    async def check(self) -> None:
        """Always succeeds."""

    async def close(self) -> None:
        """Does nothing."""


class World:
    """Two backends, and calls of a model."""

    def __init__(self) -> None:
        self.a, self.b = Backend("a"), Backend("b")
        self.loop = asyncio.get_running_loop()
        self.router = Router(parse(CONFIG, "f"), {"a": self.a, "b": self.b}, clock=self.loop.time)
        self.answers: list[tuple[float, float, str]] = []  # time of the call, its seconds, its text or error

    async def call(self, model: str = "m", *, is_stream: bool = True) -> tuple[float, str]:
        """Makes a call; returns its seconds, and the name of the backend that answered or of the error."""
        started = self.loop.time()
        execution = new_execution(self.router, model)
        try:
            if is_stream:
                chunks = [as_chunk(part) async for batch in execution.stream() for part in parts(batch)]
                text = "".join(choice.delta.content for chunk in chunks for choice in chunk.choices)
            else:
                text = as_message(await execution.complete()).choices[0].message.content.string_value
        except ParleyError as error:
            text = type(error).__name__
        self.answers.append((started, self.loop.time() - started, text))
        return self.answers[-1][1:]

    async def calls(self, seconds: float, each: float, model: str = "m", *, is_stream: bool = True) -> None:
        """Makes a call every `seconds` for a period, whether or not earlier calls have ended; then waits for all."""
        running = []
        for _ in range(round(seconds / each)):
            running.append(asyncio.create_task(self.call(model, is_stream=is_stream)))
            await asyncio.sleep(each)
        await asyncio.gather(*running)

    def since(self, started: float) -> list[tuple[float, str]]:
        """Returns the answers to calls that were made since then."""
        return [(took, text) for at, took, text in self.answers if at >= started]
