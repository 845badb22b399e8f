"""Accumulation of chunks into completions, and splitting of completions into chunks."""

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import NULL_VALUE
from hypothesis import given
from hypothesis import strategies as st

from parley.core.errors import StreamBroken
from parley.core.streaming.accumulator import BoundedAccumulator, CompletionAccumulator, reported_usage, stored_answer
from parley.core.streaming.replay import completion_to_chunks
from parley.core.streaming.shaper import StreamShaper, stamp
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import (
    Audio,
    Choice,
    ChunkChoice,
    CustomCall,
    CustomCallDelta,
    Delta,
    FunctionCall,
    FunctionCallDelta,
    Logprobs,
    Message,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)

USAGE = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)


def _stamped() -> ChatCompletion:
    answer = ChatCompletion()
    stamp(answer, "m", "session")
    return answer


def _accumulated(*chunks: ChatCompletionChunk) -> ChatCompletion:
    accumulator = CompletionAccumulator(_stamped())
    for chunk in chunks:
        accumulator.add(chunk)
    return accumulator.completion()


def _chunk(*deltas: Delta, finish: str | None = None) -> ChatCompletionChunk:
    choices = [ChunkChoice(index=index, delta=delta, finish_reason=finish) for index, delta in enumerate(deltas)]
    return ChatCompletionChunk(choices=choices)


def test_text_and_tool_calls_are_accumulated() -> None:
    """Pieces of text are joined in order of arrival, tool calls in order of their index."""
    pieces = (
        ToolCallDelta(index=1, id="b", type="function", function=FunctionCallDelta(name="g", arguments="")),
        ToolCallDelta(index=0, id="a", type="function", function=FunctionCallDelta(name="f", arguments='{"x"')),
        ToolCallDelta(index=0, function=FunctionCallDelta(arguments=":1}")),
        ToolCallDelta(index=2, id="c", type="custom", custom=CustomCallDelta(name="h", input="do ")),
        ToolCallDelta(index=2, custom=CustomCallDelta(input="it")),
    )
    texts = [_chunk(Delta(role="assistant", content="Let ")), _chunk(Delta(content="me see"))]
    answer = _accumulated(*texts, *(_chunk(Delta(tool_calls=[piece])) for piece in pieces))
    message = answer.choices[0].message
    assert ("assistant", "Let me see") == (message.role, message.content.string_value)
    assert [("a", "f", '{"x":1}'), ("b", "g", ""), ("c", "", "")] == [
        (call.id, call.function.name, call.function.arguments) for call in message.tool_calls
    ]
    assert ("custom", "h", "do it") == (message.tool_calls[2].type, *_custom(message.tool_calls[2]))


def _custom(call: ToolCall) -> tuple[str, str]:
    return call.custom.name, call.custom.input


def test_choices_are_accumulated_separately() -> None:
    """Each choice has its own text, probabilities and finish reason; a session stores the first message."""
    first, second, last = _chunk(Delta(content="a"), Delta(content="b")), _chunk(Delta(content="c")), _chunk()
    for token, choice in zip("xy", first.choices, strict=True):
        choice.logprobs.CopyFrom(Logprobs(content=[TokenLogprob(token=token)]))
    second.choices[0].logprobs.CopyFrom(Logprobs(content=[TokenLogprob(token="z")]))
    last.choices.add(index=1, finish_reason="length")
    last.choices.add(index=0, finish_reason="stop")
    answer = _accumulated(first, second, last)
    assert [(0, "ac", "stop", ["x", "z"]), (1, "b", "length", ["y"])] == [
        (c.index, c.message.content.string_value, c.finish_reason, [token.token for token in c.logprobs.content])
        for c in answer.choices
    ]
    kept, _ = stored_answer(answer)
    assert kept is not None
    assert "ac" == kept.content.string_value


def test_other_fields_of_a_message_are_accumulated() -> None:
    """Reasoning, refusals, function calls, audio and annotations are accumulated too."""
    deltas = (
        Delta(reasoning_content="Hm", refusal="No"),
        Delta(reasoning_content="m.", refusal=", thanks"),
        Delta(function_call=FunctionCallDelta(name="f", arguments="{")),
        Delta(function_call=FunctionCallDelta(arguments="}")),
        Delta(audio=Audio(id="sound", data="AA", transcript="la ")),
        Delta(audio=Audio(expires_at=9, data="BB", transcript="la")),
        Delta(annotations=[ParseDict({"type": "url_citation"}, Delta().annotations.add())]),
    )
    message = _accumulated(*map(_chunk, deltas)).choices[0].message
    assert ("Hmm.", "No, thanks") == (message.reasoning_content, message.refusal)
    assert ("f", "{}") == (message.function_call.name, message.function_call.arguments)
    assert Audio(id="sound", expires_at=9, data="AABB", transcript="la la") == message.audio
    assert 1 == len(message.annotations)


def test_the_answer_keeps_its_stamp() -> None:
    """The answer keeps its id, time, model and session, and gets the backend's usage, fingerprint and tier."""
    answer = _stamped()
    accumulator = CompletionAccumulator(answer)
    accumulator.add(ChatCompletionChunk(system_fingerprint="fp", service_tier="flex", usage=USAGE))
    completion = accumulator.completion()
    assert ("m", "session", "chat.completion") == (completion.model, completion.session_id, completion.object)
    assert ("fp", "flex", USAGE) == (
        completion.system_fingerprint,
        completion.service_tier,
        reported_usage(completion),
    )


def test_an_empty_answer_has_no_message() -> None:
    """A stream that fails before its first token, or without output, has no message and no usage."""
    empty = _accumulated(_chunk(Delta(role="assistant", content="")))
    assert (None, None) == stored_answer(empty) == stored_answer(_accumulated())


def test_the_answer_so_far_can_be_read_repeatedly() -> None:
    """Reading the answer so far does not change it."""
    accumulator = CompletionAccumulator(_stamped())
    accumulator.add(_chunk(Delta(content="a")))
    assert 1 == len(accumulator.completion().choices)
    accumulator.add(_chunk(Delta(content="b")))
    assert ["ab"] == [choice.message.content.string_value for choice in accumulator.completion().choices]


def test_an_answer_that_is_too_large_fails() -> None:
    """An answer above the size limit raises StreamBroken, and the answer so far is kept."""
    accumulator = CompletionAccumulator(_stamped(), max_size=2 * 1024 * 1024)
    accumulator.add(_chunk(Delta(content="x" * 1024 * 1024)))
    with pytest.raises(StreamBroken, match=r'^The answer of the model "m" is larger than 2 MiB; ask for less$'):
        accumulator.add(_chunk(Delta(content="x" * 1024 * 1024)))
    assert 1024 * 1024 == len(accumulator.completion().choices[0].message.content.string_value)


# -------------------------------------------------------------------------------------------------- splitting

_TEXTS = st.text(max_size=20) | st.sampled_from([4096, 4097, 9000]).map("ü".__mul__)
_CALLS = st.builds(
    lambda name, text, custom: (
        ToolCall(id="c", type="custom", custom=CustomCall(name=name, input=text))
        if custom
        else ToolCall(id="c", type="function", function=FunctionCall(name=name, arguments=text))
    ),
    st.sampled_from(["f", "g"]),
    _TEXTS.filter(bool),
    st.booleans(),
)


@st.composite
def _choices(draw: st.DrawFn, index: int) -> Choice:
    message = Message(role="assistant", tool_calls=draw(st.lists(_CALLS, max_size=3)))
    for name in ("refusal", "reasoning_content"):
        if text := draw(_TEXTS):
            setattr(message, name, text)
    message.content.string_value = draw(_TEXTS)
    if not message.content.string_value and (message.tool_calls or message.refusal):
        message.content.null_value = NULL_VALUE
    choice = Choice(index=index, message=message, finish_reason=draw(st.sampled_from(["stop", "length"])))
    if count := draw(st.sampled_from([0, 1, 64, 130])):
        choice.logprobs.content.extend(TokenLogprob(token=str(number)) for number in range(count))
    return choice


@given(st.integers(1, 3).flatmap(lambda count: st.tuples(*(_choices(index) for index in range(count)))))
def test_splitting_and_accumulating_restores_a_completion(choices: tuple[Choice, ...]) -> None:
    """The chunks of any completion are in order, at most 32 KiB each, and accumulate to the same completion."""
    answer = _stamped()
    answer.choices.extend(choices)
    answer.usage.CopyFrom(USAGE)
    answer.system_fingerprint = "fp"
    chunks = [chunk for batch in completion_to_chunks(answer) for chunk in batch]
    assert list(range(len(chunks))) == [chunk.sequence for chunk in chunks]
    assert max(chunk.ByteSize() for chunk in chunks) < 32 * 1024
    assert {(answer.id, answer.created, "m", "session", "fp")} == {
        (chunk.id, chunk.created, chunk.model, chunk.session_id, chunk.system_fingerprint) for chunk in chunks
    }
    again = ChatCompletion()
    again.CopyFrom(answer)
    del again.choices[:]
    accumulator = CompletionAccumulator(again)
    for chunk in chunks:
        accumulator.add(chunk)
    assert answer == accumulator.completion()


def test_the_replayed_stream_has_the_documented_sequence() -> None:
    """A replay has, for each choice, the role first and the finish reason last; the last chunk has the usage."""
    answer = _accumulated(_chunk(Delta(content="a"), Delta(content="b"), finish="stop"))
    answer.usage.CopyFrom(USAGE)
    chunks = [chunk for batch in completion_to_chunks(answer) for chunk in batch]
    assert [(0, "assistant"), (0, ""), (0, ""), (1, "assistant"), (1, ""), (1, "")] == [
        (chunk.choices[0].index, chunk.choices[0].delta.role) for chunk in chunks[:-1]
    ]
    assert ["", "", "stop", "", "", "stop"] == [chunk.choices[0].finish_reason for chunk in chunks[:-1]]
    assert ([], USAGE) == (list(chunks[-1].choices), chunks[-1].usage)


def test_functions_and_audio_are_replayed() -> None:
    """Function calls, audio and annotations are replayed."""
    deltas = (
        Delta(function_call=FunctionCallDelta(name="f", arguments="{}")),
        Delta(audio=Audio(id="sound", data="AA")),
        Delta(annotations=[ParseDict({"type": "url_citation"}, Delta().annotations.add())]),
    )
    answer = _accumulated(*map(_chunk, deltas))
    again = _accumulated(*(chunk for batch in completion_to_chunks(answer) for chunk in batch))
    assert answer.choices[0].message == again.choices[0].message


def test_a_shaped_stream_and_its_replay_have_the_same_text() -> None:
    """A replay has the same text and id as the original stream."""
    answer = _stamped()
    accumulator, shaper = CompletionAccumulator(answer), StreamShaper(answer)
    first = []
    for chunk in (_chunk(Delta(content="Hel")), _chunk(Delta(content="lo"), finish="stop")):
        accumulator.add(chunk)
        first += shaper.shape(chunk)
    first.append(shaper.end())
    again = [chunk for batch in completion_to_chunks(accumulator.completion()) for chunk in batch]
    assert "Hello" == "".join(c.delta.content for chunk in first for c in chunk.choices)
    assert "Hello" == "".join(c.delta.content for chunk in again for c in chunk.choices)
    assert {chunk.id for chunk in first} == {chunk.id for chunk in again}


def test_a_replay_has_one_kind_of_delta_per_chunk() -> None:
    """A replay has one tool call or other kind per chunk, and no content before tool calls."""
    message = Message(role="assistant", reasoning_content="hm", refusal="no", extra_json='{"details":[1]}')
    message.tool_calls.extend(
        ToolCall(id=name, type="function", function=FunctionCall(name=name, arguments="{}")) for name in "fg"
    )
    message.audio.CopyFrom(Audio(id="sound"))
    message.function_call.CopyFrom(FunctionCall(name="h", arguments="{}"))
    answer = _stamped()
    answer.choices.append(Choice(index=0, message=message, finish_reason="tool_calls", extra_json='{"flags":1}'))
    answer.extra_json = '{"provider":"x"}'
    chunks = [chunk for batch in completion_to_chunks(answer) for chunk in batch]
    for chunk in chunks[:-1]:
        delta = chunk.choices[0].delta
        assert sum(field.name not in {"role", "extra_json"} for field, _ in delta.ListFields()) <= 1
        assert len(delta.tool_calls) <= 1
    assert not chunks[0].choices[0].delta.HasField("content")
    firsts = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls if call.id]
    assert [("f", ""), ("g", "")] == [(call.function.name, call.function.arguments) for call in firsts]
    again = _accumulated(*chunks)
    assert ('{"details":[1]}', '{"flags":1}') == (again.choices[0].message.extra_json, again.choices[0].extra_json)
    assert '{"provider":"x"}' == again.extra_json


def test_unknown_fields_are_merged() -> None:
    """Arrays are appended, objects are merged, other values are replaced, and large integers are kept."""
    pieces = ['{"a":[1],"o":{"x":1},"s":"one"}', '{"a":[2],"o":{"y":123456789012345678901234567890},"s":"two"}']
    message = _accumulated(*(_chunk(Delta(content="a", extra_json=piece)) for piece in pieces)).choices[0].message
    assert '{"a":[1,2],"o":{"x":1,"y":123456789012345678901234567890},"s":"two"}' == message.extra_json


def test_content_of_an_answer_without_text() -> None:
    """Content is null in an answer with tool calls, and empty in one without any text or call."""
    called = _accumulated(_chunk(Delta(tool_calls=[ToolCallDelta(index=0, id="a")]), finish="tool_calls"))
    assert "null_value" == called.choices[0].message.content.WhichOneof("kind")
    cut = _accumulated(_chunk(Delta(reasoning_content="hm"), finish="length"))
    assert ("string_value", "") == (
        cut.choices[0].message.content.WhichOneof("kind"),
        cut.choices[0].message.content.string_value,
    )


def test_an_answer_for_the_cache_alone_is_bounded() -> None:
    """An answer that exceeds the size neither fails nor is held: it has no choices, whatever follows."""
    chunk = ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content="x" * 100))])
    bounded = BoundedAccumulator(_stamped(), 250)
    texts = []
    for _ in range(4):
        bounded.add(chunk)
        texts.append("".join(one.message.content.string_value for one in bounded.completion().choices))
    assert ["x" * 100, "x" * 200, "", ""] == texts
