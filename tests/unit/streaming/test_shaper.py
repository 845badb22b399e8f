"""The documented sequence of a stream's chunks."""

import json

import pytest
from google.protobuf.struct_pb2 import Struct

from parley.core.ports.plain_text import PlainText, TextKind
from parley.core.streaming.plain_text import as_chunk, parts
from parley.core.streaming.shaper import StreamShaper, has_output, stamp
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import (
    Audio,
    ChunkChoice,
    Delta,
    FunctionCallDelta,
    Logprobs,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)


def _chunk(*deltas: Delta, finish: str | None = None) -> ChatCompletionChunk:
    chunk = ChatCompletionChunk()
    for index, delta in enumerate(deltas):
        choice = chunk.choices.add(index=index, delta=delta)
        if finish:
            choice.finish_reason = finish
    return chunk


def _shape(*chunks: ChatCompletionChunk) -> list[ChatCompletionChunk]:
    answer = ChatCompletion()
    stamp(answer, "m", "session")
    shaper = StreamShaper(answer)
    return [shaped for chunk in chunks for shaped in shaper.shape(chunk)] + [shaper.end()]


def test_one_chunk_becomes_the_documented_sequence() -> None:
    """Role, text and finish reason in one chunk become four: role, text, finish reason, usage."""
    combined = _chunk(Delta(role="assistant", content="Hi"), finish="stop")
    combined.usage.CopyFrom(Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3))
    role, text, finish, usage = _shape(combined)
    assert Delta(role="assistant", content="") == role.choices[0].delta
    assert Delta(content="Hi") == text.choices[0].delta
    assert not text.choices[0].HasField("finish_reason")
    assert Delta() == finish.choices[0].delta
    assert "stop" == finish.choices[0].finish_reason
    assert (0, 3) == (len(usage.choices), usage.usage.total_tokens)


def test_all_chunks_carry_the_same_stamp_and_count_up() -> None:
    """`id`, `created`, `model` and the session are the same in every chunk, and `sequence` counts from 0."""
    shaped = _shape(_chunk(Delta(role="assistant", content="")), _chunk(Delta(content="a")), _chunk(Delta(content="b")))
    assert [0, 1, 2, 3] == [chunk.sequence for chunk in shaped]
    assert 1 == len({(chunk.id, chunk.created, chunk.model, chunk.session_id, chunk.object) for chunk in shaped})
    assert ("m", "session", "chat.completion.chunk") == (shaped[0].model, shaped[0].session_id, shaped[0].object)


def test_the_role_is_sent_once_per_choice() -> None:
    """A role that a backend repeats in every delta is sent once for each choice."""
    first, second = (Delta(role="assistant", content=text) for text in "ab")
    shaped = _shape(_chunk(first, second), _chunk(first, second))[:-1]
    roles = [(chunk.choices[0].index, chunk.choices[0].delta.role) for chunk in shaped]
    assert [(0, "assistant"), (0, ""), (1, "assistant"), (1, ""), (0, ""), (1, "")] == roles


def test_moderation_is_in_the_last_chunk() -> None:
    """The result of moderation is in the last chunk only, whatever the backend sends after it."""
    reported = ChatCompletionChunk()
    reported.moderation.update({"input": {"type": "moderation_results"}})
    *others, last = _shape(_chunk(Delta(content="a")), reported, _chunk(Delta(content="b")))
    assert reported.moderation == last.moderation
    assert not any(chunk.HasField("moderation") for chunk in others)


def test_logprobs_stay_with_their_delta() -> None:
    """Token probabilities are in the chunk of their text."""
    chunk = _chunk(Delta(content="a"))
    chunk.choices[0].logprobs.CopyFrom(Logprobs(content=[TokenLogprob(token="a", logprob=-1.0)]))
    _, text, _ = _shape(chunk)
    assert "a" == text.choices[0].logprobs.content[0].token


def test_logprobs_without_text_are_not_lost() -> None:
    """Probabilities without text are kept: a token may be a part of a character, or come with the finish reason."""
    half, last = _chunk(Delta(content="")), _chunk(Delta(), finish="stop")
    for chunk, token in ((half, "a"), (last, "b")):
        chunk.choices[0].logprobs.CopyFrom(Logprobs(content=[TokenLogprob(token=token, logprob=-1.0)]))
    _, first, second, finish, _ = _shape(half, last)
    assert ["a", "b"] == [chunk.choices[0].logprobs.content[0].token for chunk in (first, second)]
    assert ("stop", False) == (finish.choices[0].finish_reason, finish.choices[0].HasField("logprobs"))


def test_a_fingerprint_is_in_every_later_chunk() -> None:
    """The fingerprint that a backend sends is in every chunk from then on."""
    chunk = _chunk(Delta(content="a"))
    chunk.system_fingerprint = "fp"
    assert ["fp", "fp", "fp"] == [shaped.system_fingerprint for shaped in _shape(chunk)]


def _call(index: int, name: str) -> ToolCallDelta:
    return ToolCallDelta(index=index, id=f"c{index}", function=FunctionCallDelta(name=name))


def test_each_delta_is_of_one_kind() -> None:
    """A backend's delta of many kinds becomes one chunk for each kind and each tool call."""
    delta = Delta(content="Hi", reasoning_content="hm", refusal="no", tool_calls=[_call(0, "f"), _call(1, name="g")])
    delta.audio.CopyFrom(Audio(id="a"))
    delta.function_call.name = "h"
    delta.annotations.append(Struct())
    role, *shaped, _ = _shape(_chunk(delta))
    kinds = [[field.name for field, _ in chunk.choices[0].delta.ListFields()] for chunk in shaped]
    calls = ["tool_calls", "tool_calls", "function_call"]
    assert [
        ["reasoning_content"],
        ["content"],
        ["refusal"],
        *[[kind] for kind in calls],
        ["audio"],
        ["annotations"],
    ] == kinds
    assert ["f", "g"] == [chunk.choices[0].delta.tool_calls[0].function.name for chunk in shaped[3:5]]
    assert Delta(role="assistant") == role.choices[0].delta


def test_deltas_of_one_chunk_keep_their_order() -> None:
    """Deltas of one choice in one chunk of the backend are sent in the same order."""
    chunk = _chunk(Delta(reasoning_content="hm"))
    chunk.choices.extend(
        ChunkChoice(index=0, delta=delta) for delta in (Delta(content="a"), Delta(reasoning_content="m"))
    )
    deltas = [shaped.choices[0].delta for shaped in _shape(chunk)[1:-1]]
    assert [Delta(reasoning_content="hm"), Delta(content="a"), Delta(reasoning_content="m")] == deltas


@pytest.mark.parametrize(
    ("delta", "content"),
    [
        (Delta(content="Hi"), ""),
        (Delta(content="", tool_calls=[_call(0, "f")]), None),
        (Delta(content="", refusal="No"), None),
        (Delta(reasoning_content="hm"), None),
        (Delta(function_call=FunctionCallDelta(name="f")), None),
    ],
)
def test_the_content_of_the_first_chunk(delta: Delta, content: str | None) -> None:
    """The first chunk has empty content before text and none before other kinds, so that clients build null."""
    role_only = _chunk(Delta(role="assistant", content=""))
    first, second, *_ = _shape(role_only, _chunk(delta))
    found = first.choices[0].delta
    assert ("assistant", content) == (found.role, found.content if found.HasField("content") else None)
    assert not second.choices[0].delta.HasField("content") or content == ""


def test_an_answer_without_a_token_has_role_and_finish_reason() -> None:
    """An answer that a limit ends before its first token has the role and the finish reason."""
    role, finish, _ = _shape(_chunk(Delta(role="assistant")), _chunk(Delta(), finish="length"))
    assert Delta(role="assistant", content="") == role.choices[0].delta
    assert ("length", Delta()) == (finish.choices[0].finish_reason, finish.choices[0].delta)


def test_unknown_fields_travel_with_their_object() -> None:
    """Unknown fields of a delta or a choice are in its chunk; those of the answer in the next or the last chunk."""
    first = ChatCompletionChunk(extra_json='{"provider":"x"}')
    reported = _chunk(Delta(content="a", extra_json='{"details":[1]}'))
    reported.choices[0].extra_json = '{"flags":{}}'
    last = ChatCompletionChunk(extra_json='{"timings":1}')
    _, text, end = _shape(first, reported, last)
    assert {"provider": "x"} == json.loads(text.extra_json)
    assert ('{"flags":{}}', '{"details":[1]}') == (text.choices[0].extra_json, text.choices[0].delta.extra_json)
    assert {"timings": 1} == json.loads(end.extra_json)


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
@pytest.mark.parametrize("is_plain", [True, False])
def test_unknown_fields_wait_for_the_next_chunk(field: TextKind, is_plain: bool) -> None:
    """They are in that chunk, whatever it has, also if it is a plain text."""
    answer = ChatCompletion()
    stamp(answer, "m", None)
    shaper = StreamShaper(answer)
    shaper.shape(_chunk(Delta(content="a")))
    shaper.shape(ChatCompletionChunk(extra_json='{"provider":"x"}'))
    text = PlainText(field, "b", 1)
    for extra in ('{"provider":"x"}', ""):
        [chunk] = parts(shaper.shape_text(text) if is_plain else shaper.shape(as_chunk(text)))
        assert (extra, "b") == (as_chunk(chunk).extra_json, getattr(as_chunk(chunk).choices[0].delta, field))


def test_output_of_a_choice() -> None:
    """Unknown fields and a role are no output; any other field of a delta and the finish reason are."""
    assert not any(map(has_output, (ChunkChoice(delta=Delta(role="assistant", extra_json="{}")), ChunkChoice())))
    assert all(map(has_output, (ChunkChoice(delta=Delta(content="a")), ChunkChoice(finish_reason="stop"))))
