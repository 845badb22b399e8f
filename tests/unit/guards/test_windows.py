"""Windows of streamed answers: what is held back, what is checked, and what leaves."""

import json
import re
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.core.guards.decisions import Span
from parley.core.guards.windows import ChoiceWindows
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.guard.v1 import guard_pb2 as guard
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta, Message

SECRET = re.compile("k[0-9]{1,9}")


def content(text: str) -> ChunkChoice:
    """Returns a chunk with content."""
    return ChunkChoice(index=0, delta=Delta(content=text))


def reasoning(text: str) -> ChunkChoice:
    """Returns a chunk with reasoning."""
    return ChunkChoice(index=0, delta=Delta(reasoning_content=text))


def arguments(number: int, text: str, name: str = "") -> ChunkChoice:
    """Returns a chunk with a part of a tool call's arguments."""
    choice = ChunkChoice(index=0)
    call = choice.delta.tool_calls.add(index=number)
    if name:
        call.id, call.type, call.function.name = f"call_{number}", "function", name
    call.function.arguments = text
    return choice


FINISH = ChunkChoice(index=0, finish_reason="stop")


def run(
    chunks: Sequence[ChunkChoice], window: int, overlap: int, secret: re.Pattern[str] = SECRET
) -> Iterator[list[ChunkChoice]]:
    """Yields what leaves after each chunk, with every secret of the checked windows replaced by X."""
    windows = ChoiceWindows(window, overlap)
    for chunk in chunks:
        windows.add(chunk)
        if not windows.is_due:
            yield []
            continue
        places, units = windows.units()
        spans = {
            place: [Span(*found.span(), "X") for found in secret.finditer(unit.text)]
            for place, unit in zip(places, units, strict=True)
        }
        yield windows.release(spans, last=windows.is_finished)


def joined(passed: Sequence[Sequence[ChunkChoice]]) -> Message:
    """Returns the message that a client makes of the chunks."""
    accumulator = CompletionAccumulator(ChatCompletion())
    for choice in [one for some in passed for one in some]:
        accumulator.add(ChatCompletionChunk(choices=[choice]))
    return accumulator.completion().choices[0].message


def pieces(text: str, sizes: Sequence[int]) -> list[str]:
    """Splits a text into pieces of these sizes, repeated."""
    made, start, turn = [], 0, 0
    while start < len(text):
        made.append(text[start : start + sizes[turn % len(sizes)]])
        start, turn = start + len(made[-1]), turn + 1
    return made


@given(
    st.text("k01é😀 ", max_size=120),
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.integers(1, 30),
    st.integers(10, 40),
)
def test_windows_replace_what_a_check_of_the_whole_text_would(
    text: str, sizes: list[int], window: int, overlap: int
) -> None:
    """However a text is cut into chunks and windows, each span that fits the overlap is replaced, and nothing else."""
    passed = list(run([*map(content, pieces(text, sizes)), FINISH], window, overlap))
    assert SECRET.sub("X", text) == joined(passed).content.string_value


@given(st.text("k01 ", max_size=80), st.text("k01 ", max_size=80), st.integers(1, 20))
def test_reasoning_and_content_are_texts_of_their_own(thought: str, text: str, window: int) -> None:
    """Reasoning and content are redacted each by itself, and the reasoning leaves first."""
    chunks = [*map(reasoning, pieces(thought, [3])), *map(content, pieces(text, [4])), FINISH]
    passed = [one for some in run(chunks, window, 10) for one in some]
    message = joined([passed])
    assert (SECRET.sub("X", thought), SECRET.sub("X", text)) == (
        message.reasoning_content,
        message.content.string_value,
    )
    kinds = ["content" if one.delta.content else "reasoning" for one in passed if not one.HasField("finish_reason")]
    assert sorted(kinds, reverse=True) == kinds


def test_nothing_leaves_before_its_window_is_complete() -> None:
    """Text leaves once the window is complete, without the overlap, and the rest at the end."""
    left = [
        "".join(one.delta.content for one in some)
        for some in run([content("abcd"), content("efgh"), content("ij"), FINISH], 8, 3)
    ]
    assert ["", "abcde", "", "fghij"] == left


def test_a_span_that_reaches_the_end_is_held_back_whole() -> None:
    """A secret longer than window and overlap is replaced once, however long it grows."""
    chunks = [content("to k1"), *[content("1") for _ in range(8)], content(" end"), FINISH]
    assert "to X end" == joined(list(run(chunks, 2, 1))).content.string_value


def test_tool_calls_keep_their_order_ids_and_names() -> None:
    """Parallel tool calls arrive with their ids and names, and with redacted arguments."""
    chunks = [
        arguments(0, "", "first"),
        arguments(0, '{"a": "k1'),
        arguments(0, '23"}'),
        arguments(1, "", "second"),
        arguments(1, '{"b": 2}'),
        FINISH,
    ]
    message = joined(list(run(chunks, 4, 12)))
    assert [("call_0", "first", '{"a": "X"}'), ("call_1", "second", '{"b": 2}')] == [
        (call.id, call.function.name, call.function.arguments) for call in message.tool_calls
    ]


def test_units_have_the_tool_and_the_offset() -> None:
    """A unit has the name of its tool, and the number of code points before its window."""
    windows = ChoiceWindows(4, 2)
    windows.add(arguments(0, "{é}{}", "search"))
    _, [first] = windows.units()
    windows.release({}, last=False)
    windows.add(arguments(0, "more"))
    _, [second] = windows.units()
    assert (guard.KIND_TOOL_ARGUMENTS, "search", 0, 0) == (first.kind, first.tool_name, first.tool_call, first.offset)
    assert ("{}more", "search", 3) == (second.text, second.tool_name, second.offset)


def logprobs_chunk(text: str) -> ChunkChoice:
    """Returns a chunk with content and its probabilities."""
    choice = content(text)
    choice.logprobs.content.add(token=text, logprob=-1)
    return choice


def test_probabilities_leave_with_their_text_and_never_with_a_redacted_one() -> None:
    """Token probabilities stay up to the first redaction, and are dropped from there on."""
    passed = list(run([*map(logprobs_chunk, ["ab ", "k1", "2 ", "cd"]), FINISH], 3, 6))
    tokens = [token.token for some in passed for one in some for token in one.logprobs.content]
    assert ("ab X cd", ["ab "]) == (joined(passed).content.string_value, tokens)


def test_unknown_fields_are_removed_where_they_repeat_what_was_redacted() -> None:
    """Unknown fields of a delta are a text of their own, and are removed once the choice is redacted."""
    first, second = content("a k1"), content("2 b")
    first.delta.extra_json, second.delta.extra_json = '{"thought": "k1"}', '{"thought": "b"}'
    passed = list(run([first, second, FINISH], 1, 20))
    assert ("a X b", "") == (joined(passed).content.string_value, joined(passed).extra_json)


@pytest.mark.parametrize("last", [True, False])
def test_sound_leaves_in_order_without_a_redacted_transcript(last: bool) -> None:
    """Sound whose transcript is redacted is dropped, because it says the same."""
    first, second = ChunkChoice(index=0), ChunkChoice(index=0)
    first.delta.audio.transcript, first.delta.audio.data = "say k1", "AAAA"
    second.delta.audio.transcript, second.delta.audio.data = "2" if last else "2 ok", "BBBB"
    message = joined(list(run([first, second, FINISH], 1, 20)))
    assert ("say X" if last else "say X ok", "") == (message.audio.transcript, message.audio.data)


def test_a_secret_across_interleaved_tool_calls_does_not_leave_whole() -> None:
    """A text that goes on after another one is checked with its end before it; the rest of a secret is replaced."""
    chunks = [arguments(0, "ab k", "one"), arguments(1, "xx", "two"), arguments(0, "12 c"), arguments(1, "yy"), FINISH]
    message = joined(list(run(chunks, 2, 6)))
    assert ["ab kX c", "xxyy"] == [call.function.arguments for call in message.tool_calls]


def test_a_secret_in_pieces_of_mixed_tool_calls_is_held_back() -> None:
    """Once tool calls go on after one another, the ends of all are held back: no more than a first piece leaves."""
    pieces = [arguments(0, "ab k1", "one"), arguments(1, "x", "two")]
    pieces += [arguments(number, text) for at in (2, 4, 6) for number, text in ((0, f"{at}{at + 1}"), (1, "x"))]
    passed = list(run([*pieces, arguments(0, "8 c"), FINISH], 1, 12, re.compile("k[0-9]{8}")))
    message = joined(passed)
    assert ["ab k1X c", "xxxx"] == [call.function.arguments for call in message.tool_calls]


def test_mixed_tool_calls_that_are_too_long_are_not_held_back() -> None:
    """The text that waits for the end of another call is bounded."""
    chunks = [arguments(0, "a", "one"), arguments(1, "b", "two"), arguments(0, "c")]
    left = list(run([*chunks, *[arguments(1, "b" * 30_000)] * 4], 1, 8))
    sizes = [sum(len(call.function.arguments) for one in some for call in one.delta.tool_calls) for some in left]
    assert (2, True) == (sum(sizes[:5]), sum(sizes[5:]) > 65_000)


def test_a_beginning_that_was_none_is_no_redaction() -> None:
    """A span that was held back because it might go on has replaced nothing."""
    windows = ChoiceWindows(2, 2)
    windows.add(content("ab k"))
    places, _ = windows.units()
    windows.release({places[0]: [Span(3, 4, "X")]}, last=False)
    assert not windows.has_replaced
    windows.add(content("ing"))
    windows.release({}, last=False)
    assert not windows.has_replaced


def test_unknown_fields_of_calls_and_choices_are_checked() -> None:
    """A secret in what a vendor adds to a call, to its function or to the choice is removed; other additions stay."""
    first, second = arguments(0, '{"a"', "f"), arguments(0, ": 1}")
    first.delta.tool_calls[0].extra_json = '{"signature": "ok"}'
    first.delta.tool_calls[0].function.extra_json = '{"note": "k1"}'
    second.delta.tool_calls[0].function.extra_json = '{"note": "fine"}'
    end = ChunkChoice(index=0, finish_reason="tool_calls", extra_json='{"stop": "k2"}')
    passed = [one for some in run([first, second, end], 3, 2) for one in some]
    [call] = joined([passed]).tool_calls
    assert ('{"a": 1}', '{"signature": "ok"}', '{"note":"fine"}') == (
        call.function.arguments,
        call.extra_json,
        json.dumps(json.loads(call.function.extra_json), separators=(",", ":")),
    )
    assert ("tool_calls", "") == (passed[-1].finish_reason, passed[-1].extra_json)


def test_unknown_fields_fill_a_window() -> None:
    """Unknown fields alone leave once they are long enough: a vendor may stream its reasoning there."""
    chunks = []
    for text in ("abc", "def"):
        chunks.append(ChunkChoice(index=0))
        chunks[-1].delta.extra_json = json.dumps({"thought": text})
    assert [0, 2] == [len(some) for some in run(chunks, 20, 5)]


def test_images_are_no_text_and_the_time_of_sound_is_kept() -> None:
    """Images in unknown fields are media, which no guard gets as text; the fields of sound stay with it."""
    image, sound, end = ChunkChoice(index=0), ChunkChoice(index=0), ChunkChoice(index=0)
    image.delta.extra_json = '{"images": ["k1"]}'
    sound.delta.audio.transcript, end.delta.audio.expires_at = "hello", 7
    windows = ChoiceWindows(1, 0)
    windows.add(image)
    assert (True, []) == (windows.has_media, windows.units()[1])
    message = joined(list(run([image, sound, end, FINISH], 1, 20)))
    assert ("hello", 7, '{"images": ["k1"]}') == (
        message.audio.transcript,
        message.audio.expires_at,
        message.extra_json,
    )


def test_many_spans_of_many_deltas_take_no_time() -> None:
    """What a guard costs grows with its spans, not with their number times that of the deltas."""
    windows = ChoiceWindows(1, 0)
    for _ in range(3_000):
        windows.add(logprobs_chunk("abcdefgh"))
    windows.add(FINISH)
    [place], _ = windows.units()
    started = time.process_time()
    released = windows.release({place: [Span(at, at + 1, "X") for at in range(0, 24_000, 2)]}, last=True)
    assert time.process_time() - started < 0.7
    assert "XbXdXfXh" * 3_000 == joined([released]).content.string_value
