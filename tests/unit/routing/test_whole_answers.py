"""Tests of non-streaming answers that are requested as streams, with scripted backends."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from parley.config.loader import parse
from parley.core.errors import (
    ContentPolicy,
    ParleyError,
    StreamBroken,
    UnsupportedParameter,
    UpstreamMisconfigured,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnrecognized,
)
from parley.core.messages.text_completion import as_message
from parley.core.ports import UpstreamCall
from parley.core.routing.execution import Execution
from parley.core.routing.router import Router
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import Delta
from tests.rpc.scripted import USAGE, ScriptedBackend, chunks, completion
from tests.unit.routing.routes import Clock, new_execution

CONFIG = """
backends:
  a: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
  b: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
models:
  - {id: two, targets: [{backend: a, weight: 1000000000}, {backend: b, weight: 0.000000001}]}
  - {id: fallen, targets: [{backend: a}], fallbacks: [spare]}
  - {id: spare, targets: [{backend: b}]}
  - {id: alone, targets: [{backend: a}]}
  - {id: alone streams, targets: [{backend: a}], whole_answers: stream}
  - {id: whole, targets: [{backend: a}], fallbacks: [spare], whole_answers: whole}
  - {id: strict, targets: [{backend: a}], fallbacks: [spare], on_stream_failure: fail}
  - {id: hedged, targets: [{backend: a}], fallbacks: [spare], hedge: 20ms}
"""


class Recorder(ScriptedBackend):
    """Records in `ways` whether each call requests a stream or a complete answer."""

    def __init__(self) -> None:
        super().__init__()
        self.ways: list[str] = []
        self.refuses: ParleyError | None = None

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Returns the complete answer."""
        self.ways.append("whole")
        return await super().complete(call)

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Yields the chunks, or raises `refuses`."""
        self.ways.append("stream")
        if self.refuses is not None:
            raise self.refuses
        async for chunk in super().stream(call):
            yield chunk


class Stack:
    """A router with two scripted backends: `a`, then `b`."""

    def __init__(self) -> None:
        self.a, self.b = Recorder(), Recorder()
        self.clock = Clock()
        self.router = Router(parse(CONFIG, "f"), {"a": self.a, "b": self.b}, clock=self.clock)

    def run(self, model: str, **fields: object) -> Execution:
        """Prepares the execution of a call."""
        return new_execution(self.router, model, CreateChatCompletionRequest(**fields))  # type: ignore[arg-type]


@pytest.fixture
def stack() -> Stack:
    """The router and its backends."""
    return Stack()


def _story(execution: Execution) -> list[tuple[str, str, str]]:
    return [(one.backend, one.kind, one.outcome) for one in execution.receipt().attempts]


def _text(answer: ChatCompletion) -> str:
    return answer.choices[0].message.content.string_value


@pytest.mark.parametrize(
    ("model", "way"),
    [
        ("two", "stream"),
        ("fallen", "stream"),
        ("alone", "whole"),
        ("alone streams", "stream"),
        ("whole", "whole"),
    ],
)
async def test_an_answer_is_requested_as_a_stream_if_there_is_an_alternative(
    stack: Stack, model: str, way: str
) -> None:
    """The model's configuration may override this; answer and receipt equal those of a call without streaming."""
    execution = stack.run(model)
    answer = as_message(await execution.complete())
    assert ([way], "Hello", "stop") == (stack.a.ways, _text(answer), answer.choices[0].finish_reason)
    assert USAGE == answer.usage
    assert "assistant" == answer.choices[0].message.role
    assert [("a", "first", "completed")] == _story(execution)
    assert USAGE == execution.receipt().usage


async def test_audio_is_requested_without_streaming(stack: Stack) -> None:
    """A stream carries audio in another format."""
    await stack.run("two", modalities=["text", "audio"]).complete()
    assert ["whole"] == stack.a.ways


async def test_a_broken_stream_is_continued(stack: Stack) -> None:
    """The next target continues from the received text; the caller gets one answer with the usage of both."""
    stack.a.answer = lambda _: [*chunks("The capital", " is")[:-1], StreamBroken("broke off")]
    stack.b.answer = lambda _: chunks(" Paris.")
    execution = stack.run("fallen")
    answer = as_message(await execution.complete())
    assert ("The capital is Paris.", True) == (_text(answer), stack.b.calls[0].has_prefill)
    assert [("a", "first", "failed"), ("b", "continuation", "completed")] == _story(execution)
    assert execution.receipt().usage == answer.usage
    assert answer.usage.total_tokens > USAGE.total_tokens


def _tool_call() -> list[object]:
    chunk = ChatCompletionChunk()
    piece = chunk.choices.add(index=0, delta=Delta()).delta.tool_calls.add(index=0, id="call_1", type="function")
    piece.function.name, piece.function.arguments = "find", '{"place": "Rey'
    return [chunk, StreamBroken("broke off")]


@pytest.mark.parametrize(
    ("model", "broken", "fields"),
    [
        ("fallen", _tool_call(), {}),
        ("strict", [*chunks("The cap")[:-1], StreamBroken("broke off")], {}),
        ("fallen", [*chunks("The cap")[:-1], StreamBroken("broke off")], {"n": 2}),
    ],
    ids=["a tool call", "on_stream_failure: fail", "two choices"],
)
async def test_an_answer_that_cannot_be_continued_restarts(
    stack: Stack, model: str, broken: list[object], fields: dict[str, object]
) -> None:
    """The restarted answer has no part of the broken one, and `model` is the new one."""
    stack.a.answer = lambda _: broken
    execution = stack.run(model, **fields)
    answer = as_message(await execution.complete())
    assert ("Hello", 0, "spare") == (_text(answer), len(answer.choices[0].message.tool_calls), execution.model_id)
    assert not stack.b.calls[0].has_prefill
    assert [("a", "first", "failed"), ("b", "fallback", "completed")] == _story(execution)


async def test_a_target_that_rejects_prefill_answers_from_the_beginning(stack: Stack) -> None:
    """The restarted answer need not start with the received text."""

    def refuse(call: UpstreamCall) -> object:
        return UpstreamRejected("no prefill") if call.has_prefill else completion("Something else.")

    stack.a.answer = lambda _: [*chunks("The capital")[:-1], StreamBroken("broke off")]
    stack.b.answer = refuse
    execution = stack.run("fallen")
    assert "Something else." == _text(as_message(await execution.complete()))
    assert [("b", "continuation", "failed"), ("b", "fallback", "completed")] == _story(execution)[1:]


async def test_without_another_answer_the_caller_gets_the_error_of_the_broken_stream(stack: Stack) -> None:
    """A partial answer is never returned as a complete one."""
    stack.a.answer = lambda _: [*chunks("The capital")[:-1], StreamBroken("broke off")]
    stack.b.answer = lambda _: UpstreamTimeout("slow")
    with pytest.raises(StreamBroken, match="broke off"):
        await stack.run("fallen").complete()


async def test_a_late_first_token_is_hedged(stack: Stack) -> None:
    """A non-streaming answer is hedged like a stream."""
    stack.a.answer = lambda _: [asyncio.Event()]
    execution = stack.run("hedged")
    answer = asyncio.ensure_future(execution.complete())
    while not stack.a.ways:
        await asyncio.sleep(0)
    stack.clock.now += 1
    assert "Hello" == _text(as_message(await answer))
    assert [("a", "first", "cancelled"), ("b", "hedge", "completed")] == _story(execution)


NO_STREAMS = {
    "verification": UpstreamRejected("Your organization must be verified to stream this model.", param="stream"),
    "parameter": UpstreamRejected("Unsupported value", param="stream"),
    "in JSON mode": UpstreamRejected("response_format` does not support streaming"),
    "options": UpstreamRejected("Unknown parameter: 'stream_options'."),
    "endpoint": UpstreamMisconfigured("not available", cause="HTTP 404: no such route: /v1/stream"),
    "library": UnsupportedParameter("`stream` is not supported", param="stream"),
    "501": UpstreamUnrecognized("not available", cause="HTTP 501: Streaming is not implemented"),
    "500": UpstreamUnavailable("not available", cause="HTTP 500: Streaming is not supported"),
}


@pytest.mark.parametrize("refusal", NO_STREAMS)
async def test_a_target_that_cannot_stream_is_called_without_streaming(stack: Stack, refusal: str) -> None:
    """A target that rejects streaming is called without it; later calls do not try streaming for some minutes."""
    stack.a.refuses = NO_STREAMS[refusal]
    execution = stack.run("fallen")
    answer = as_message(await execution.complete())
    assert ("Hello", ["stream", "whole"], []) == (_text(answer), stack.a.ways, stack.b.ways)
    assert [("a", "first", "failed"), ("a", "retry", "completed")] == _story(execution)
    assert USAGE == answer.usage
    assert not execution.receipt().attempts[1].HasField("first_token_ms")
    await stack.run("two").complete()
    assert ["stream", "whole", "whole"] == stack.a.ways
    stack.clock.now += 301
    await stack.run("two").complete()
    assert ["stream", "whole"] == stack.a.ways[3:]


@pytest.mark.parametrize(
    "error",
    [
        ContentPolicy("the stream of consciousness was blocked"),
        UpstreamRejected("no such voice"),
        UpstreamUnavailable("not available", cause="HTTP 503: stream reset"),
        UpstreamUnavailable("not available", cause="HTTP 503: upstream not available"),
    ],
    ids=str,
)
async def test_other_rejections_do_not_disable_streaming(stack: Stack, error: ParleyError) -> None:
    """Other rejections cause no call without streaming."""
    stack.a.refuses = error
    with suppress(ParleyError):
        await stack.run("fallen").complete()
    assert {"stream"} == set(stack.a.ways)


async def test_a_target_that_cannot_stream_does_not_continue(stack: Stack) -> None:
    """A target that cannot stream returns a complete answer from the beginning, which replaces the broken one."""
    stack.b.refuses = UpstreamRejected("cannot stream")
    stack.a.answer = lambda _: [*chunks("The capital")[:-1], StreamBroken("broke off")]
    execution = stack.run("fallen")
    answer = as_message(await execution.complete())
    assert ("Hello", ["stream", "whole"]) == (_text(answer), stack.b.ways)
    assert 1 == len(answer.choices)
    assert answer.usage == execution.receipt().usage
    again = stack.run("fallen")
    assert "Hello" == _text(as_message(await again.complete()))
    assert [("a", "first", "failed"), ("b", "fallback", "completed")] == _story(again)
