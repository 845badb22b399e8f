"""Each vendor's variant of responses is parsed, streaming and not, for any split of the bytes, with equal results."""

from typing import Any

import pytest

from parley.backends.openai.backend import OpenAI
from parley.core.messages.proto_json import from_message
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.core.streaming.shaper import StreamShaper
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import Choice
from tests.contract.backends import call, collect
from tests.contract.vendor_call_shapes import CALLS
from tests.contract.vendor_shapes import BYTES, GENERATED, OFFER, TEXTS, Shape, with_end
from tests.upstream import Events, ScriptedUpstream, completion, event

ALL = {f"text: {name}": shape for name, shape in TEXTS.items()} | {f"bytes: {n}": s for n, s in BYTES.items()}
every_text = pytest.mark.parametrize("shape", ALL.values(), ids=ALL)
every_call = pytest.mark.parametrize("shape", CALLS.values(), ids=CALLS)


def accumulated(chunks: list[ChatCompletionChunk]) -> Choice:
    """Returns the accumulated choice of a shaped stream."""
    shaper, accumulator = (
        StreamShaper(ChatCompletion(id="i", object="o", model="m")),
        CompletionAccumulator(ChatCompletion()),
    )
    for chunk in chunks:
        for shaped in shaper.shape(chunk):
            _check_kind(shaped)
            accumulator.add(shaped)
    [choice] = accumulator.completion().choices
    return choice


def _check_kind(chunk: ChatCompletionChunk) -> None:
    """Checks that a chunk has one delta of one kind, as clients expect."""
    [choice] = chunk.choices
    kinds = [field.name for field, _ in choice.delta.ListFields() if field.name not in {"role", "extra_json"}]
    assert len(kinds) <= 1
    assert len(choice.delta.tool_calls) <= 1
    assert not (choice.HasField("finish_reason") and kinds)


def message_json(choice: Choice) -> dict[str, Any]:
    """Returns a choice's message as REST JSON, without role and tool calls."""
    message = from_message(choice.message)
    return {name: value for name, value in message.items() if name not in {"role", "tool_calls"}}


def calls(choice: Choice) -> list[tuple[str, str, str]]:
    """Returns a choice's tool calls; an id that Parley generated is GENERATED."""
    assert len({made.id for made in choice.message.tool_calls}) == len(choice.message.tool_calls)
    return [
        (GENERATED if len(made.id) > 20 else made.id, made.function.name, made.function.arguments)
        for made in choice.message.tool_calls
    ]


async def complete_answer(backend: OpenAI, upstream: ScriptedUpstream, shape: Shape, **fields: Any) -> Choice:
    """Returns the choice of a complete response with the variant's message."""
    body = completion()
    body["choices"][0] |= {
        "message": {"role": "assistant", **(shape.complete_answer or {})},
        "finish_reason": shape.reason,
    }
    upstream.answer(body)
    return (await backend.complete(call(**fields))).choices[0]


@pytest.mark.parametrize("together", [False, True])
@every_text
async def test_a_stream_of_text(backend: OpenAI, upstream: ScriptedUpstream, shape: Shape, together: bool) -> None:
    """The stream adds up to the message, with one finish reason."""
    upstream.answer(Events(with_end(shape, "stop"), together=together))
    choice = accumulated(await collect(backend, call(**shape.fields)))
    assert (shape.message, shape.reason) == (message_json(choice), choice.finish_reason)


@every_text
async def test_a_stream_of_text_byte_by_byte(backend: OpenAI, upstream: ScriptedUpstream, shape: Shape) -> None:
    """A stream that arrives byte by byte gives the same result."""
    data = b"".join(map(event, with_end(shape, "stop")))
    upstream.answer(Events([data[start : start + 7] for start in range(0, len(data), 7)]))
    assert shape.message == message_json(accumulated(await collect(backend, call(**shape.fields))))


@every_text
async def test_complete_text(backend: OpenAI, upstream: ScriptedUpstream, shape: Shape) -> None:
    """The complete response of the vendor gives the same message."""
    if shape.complete_answer is None:
        return
    choice = await complete_answer(backend, upstream, shape, **shape.fields)
    assert (shape.message, shape.reason) == (message_json(choice), choice.finish_reason)


@pytest.mark.parametrize("offers", [OFFER, {}], ids=["offered", "unknown"])
@pytest.mark.parametrize("together", [False, True])
@every_call
async def test_a_stream_of_tool_calls(
    backend: OpenAI, upstream: ScriptedUpstream, shape: Shape, together: bool, offers: dict[str, Any]
) -> None:
    """Each tool call has id, name and arguments exactly once."""
    upstream.answer(Events(with_end(shape, "tool_calls"), together=together))
    chunks = await collect(backend, call(**offers))
    choice = accumulated(chunks)
    assert (list(shape.calls), "tool_calls") == (calls(choice), choice.finish_reason)
    assert shape.message == message_json(choice)
    pieces = [made for chunk in chunks for one in chunk.choices for made in one.delta.tool_calls]
    assert len(shape.calls) == sum(bool(piece.id) for piece in pieces) == sum(bool(p.function.name) for p in pieces)


@every_call
async def test_complete_tool_calls(backend: OpenAI, upstream: ScriptedUpstream, shape: Shape) -> None:
    """The complete response of the vendor gives the same tool calls."""
    if shape.complete_answer is None:
        return
    for reason in ("tool_calls", None):
        body = completion()
        body["choices"][0] |= {"message": {"role": "assistant", **shape.complete_answer}, "finish_reason": reason}
        upstream.answer(body)
        choice = (await backend.complete(call(**OFFER))).choices[0]
        assert (list(shape.calls), "tool_calls") == (calls(choice), choice.finish_reason)
        assert shape.message == message_json(choice)
