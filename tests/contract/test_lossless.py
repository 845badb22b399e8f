"""Unknown fields in every object of a response are preserved from the upstream's bytes to the caller's."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.backends.openai.choice import ExpectedAnswer
from parley.backends.openai.response import completion
from parley.backends.openai.stream import StreamReader
from parley.core.messages.proto_json import dumps, from_message
from parley.core.messages.text_completion import as_message
from parley.core.streaming import replay
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.core.streaming.plain_text import as_chunk
from parley.core.streaming.shaper import StreamShaper, stamp
from parley.rpc.sse import EventWriter
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from tests import lossless, lossless_data

WANTED = ExpectedAnswer(CreateChatCompletionRequest(top_logprobs=2))


def stamped(answer: ChatCompletion) -> ChatCompletion:
    """Sets the fields that Parley sets."""
    stamp(answer, "m", None)
    return answer


def shown(answer: ChatCompletion, *, nulls: bool) -> Any:
    """Returns an answer as REST JSON, after a store has saved and loaded it."""
    kept = ChatCompletion.FromString(answer.SerializeToString())
    return lossless.read(dumps(from_message(kept, nulls=nulls)))


def events(chunks: list[ChatCompletionChunk], *, nulls: bool) -> list[Any]:
    """Returns the events of a stream as REST JSON."""
    text = b"".join(EventWriter(include_usage=True, nulls=nulls).events(chunks)).decode()
    # by line feeds alone: other separators stand in strings as they are
    *reported, done, nothing = text.split("\n\n")
    assert ["data: [DONE]", ""] == [done, nothing]
    assert all(event.startswith("data: ") and "\n" not in event for event in reported)
    return [lossless.read(event.removeprefix("data: ")) for event in reported]


def expected(sent: Any) -> Any:
    """Returns the part of an upstream's response that Parley forwards."""
    return {name: value for name, value in sent.items() if name not in lossless.OURS}


@lossless.examples(200, shrinks=True)
@given(sent=lossless.with_members(lossless_data.ANSWER), nulls=st.booleans())
def test_complete_answer(sent: Any, nulls: bool) -> None:
    """A complete answer is preserved when stored, and when replayed as a stream for its `Idempotency-Key`."""
    answer = stamped(as_message(completion(lossless.write(sent).encode(), lambda: WANTED)))
    lossless.require_in(expected(sent), shown(answer, nulls=nulls))
    chunks = [chunk for together in replay.completion_to_chunks(answer) for chunk in together]
    reported = lossless.joined(events(chunks, nulls=nulls))
    lossless.require_in(expected(sent), reported)


@lossless.examples(200, shrinks=True)
@given(sent=lossless_data.streams(), cuts=st.randoms(use_true_random=True), nulls=st.booleans(), together=st.booleans())
def test_streamed_answer(sent: list[Any], cuts: Random, nulls: bool, together: bool) -> None:
    """A stream is preserved as events and when accumulated, for any split of its bytes."""
    answer = stamped(ChatCompletion())
    shaper, accumulator = StreamShaper(answer), CompletionAccumulator(answer)
    reported: list[ChatCompletionChunk] = []
    for chunk in read(sent, cuts, together=together):
        accumulator.add(chunk)
        reported += shaper.shape(chunk)
    reported.append(shaper.end())
    non_streaming = expected(lossless.joined(sent))
    lossless.require_in(non_streaming, lossless.joined(events(reported, nulls=nulls)))
    lossless.require_in(non_streaming, shown(accumulator.completion(), nulls=nulls))


def read(sent: list[Any], cuts: Random, *, together: bool) -> Iterator[ChatCompletionChunk]:
    """Parses a stream whose bytes arrive in chunks of any size, or in one chunk with `together`."""
    data = b"".join(b"data: %b\n\n" % lossless.write(event).encode() for event in sent) + b"data: [DONE]\n\n"
    reader = StreamReader(WANTED)
    while data:
        size = len(data) if together else cuts.randint(1, 200)
        piece, data = data[:size], data[size:]
        if (part := reader.feed(piece)) is not None:
            yield as_chunk(part)
    assert (None, True) == (reader.failure, reader.is_complete)


LARGE = lossless.read('{"z":-0,"n":1e400,"a":' + "9" * 5000 + ',"m":1.50,"b":' + '{"":' * 60 + "[]" + "}" * 61)
"""An object whose keys are not sorted, with numbers that no double holds, as deep as it is."""


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("choices", 0),
        ("choices", 0, "message"),
        ("choices", 0, "message", "annotations", 0),
        ("choices", 0, "message", "annotations", 0, "url_citation"),
        ("choices", 0, "message", "audio"),
        ("choices", 0, "message", "tool_calls", 0),
        ("choices", 0, "message", "tool_calls", 0, "function"),
        ("choices", 0, "message", "tool_calls", 1, "custom"),
        ("choices", 0, "logprobs"),
        ("choices", 0, "logprobs", "content", 0),
        ("choices", 0, "logprobs", "content", 0, "top_logprobs", 1),
        ("choices", 0, "logprobs", "refusal", 0),
        ("usage",),
        ("usage", "cost_details"),
        ("usage", "prompt_tokens_details"),
    ],
)
def test_large_numbers_and_deep_objects(path: tuple[str | int, ...]) -> None:
    """Large numbers and deep objects are preserved in every object, also when replayed as a stream."""
    sent = parent = lossless.read(json.dumps(lossless_data.ANSWER))
    for step in path:
        parent = parent[step]
    parent["x"] = LARGE
    answer = stamped(as_message(completion(lossless.write(sent).encode(), lambda: WANTED)))
    lossless.require_in(expected(sent), shown(answer, nulls=False))
    chunks = [chunk for together in replay.completion_to_chunks(answer) for chunk in together]
    lossless.require_in(expected(sent), lossless.joined(events(chunks, nulls=False)))


def test_a_function_s_input_and_a_custom_tool_s_arguments_are_unknown() -> None:
    """`input` of a function call and `arguments` of a custom call are unknown fields."""
    function = '{"name":"f","arguments":"{}","input":{"a":1}}'
    call = f'{{"id":"c","type":"function","function":{function}}}'
    message = f'{{"role":"assistant","content":null,"tool_calls":[{call}]}}'
    body = f'{{"choices":[{{"index":0,"message":{message},"finish_reason":"tool_calls"}}]}}'
    [called] = as_message(completion(body.encode(), lambda: WANTED)).choices[0].message.tool_calls
    assert ('{"input":{"a":1}}', "{}") == (called.function.extra_json, called.function.arguments)
