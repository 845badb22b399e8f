"""Which chunks are plain text, and what plain text stands for."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest

from parley.core.messages.proto_json import from_message
from parley.core.ports.plain_text import Batch, PlainText, TextKind
from parley.core.streaming.accumulator import BoundedAccumulator
from parley.core.streaming.plain_text import as_chunk, chunk_bytes, chunk_size, parts, plain_text
from parley.core.streaming.shaper import StreamShaper, stamp
from parley.rpc.sse import EventWriter
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta

KINDS: tuple[TextKind, ...] = ("content", "reasoning_content")
OWN = {"delta", "index"}
"""The fields of plain text that have presence, besides the text."""
TEXT = "né \U0001f600"


def _chunk(text: str = TEXT, index: int = 0, kind: str = "content") -> ChatCompletionChunk:
    delta = Delta()
    setattr(delta, kind, text)
    return ChatCompletionChunk(choices=[ChunkChoice(index=index, delta=delta)])


def _plain(chunk: ChatCompletionChunk) -> PlainText:
    found = plain_text(chunk)
    assert found is not None
    return found


def _places(chunk: ChatCompletionChunk) -> list[Any]:
    return [chunk, chunk.choices[0], chunk.choices[0].delta]


def _set(message: Any, name: str) -> None:
    """Sets a field to its default value; adds an empty value to a list."""
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.is_repeated:
        getattr(message, name).add()
    elif field.message_type is not None:
        getattr(message, name).SetInParent()
    else:
        setattr(message, name, field.default_value)


def _fields() -> Iterator[tuple[int, str]]:
    for place, message in enumerate(_places(_chunk())):
        for field in message.DESCRIPTOR.fields:
            if field.has_presence or field.is_repeated:
                yield place, field.name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["a", TEXT, "x" * 100, "é" * 50], ids=len)
def test_a_short_text_is_plain(text: str, kind: str) -> None:
    """A chunk with a short text of one kind and nothing else is plain text, and that is the chunk again."""
    chunk = _chunk(text, kind=kind)
    plain = _plain(chunk)
    assert (kind, text, len(text.encode())) == (plain.kind, plain.text, plain.size)
    assert (chunk.SerializeToString(), chunk.ByteSize()) == (chunk_bytes(plain), chunk_size(plain))
    assert (chunk, (plain,), chunk) == (as_chunk(plain), parts(plain), as_chunk(chunk))


@pytest.mark.parametrize("sequence", [2, 127, 128, 16_384])
@pytest.mark.parametrize("fingerprint", ["", "fp"])
def test_plain_text_has_the_fields_of_its_stream(sequence: int, fingerprint: str) -> None:
    """Its bytes are those of the chunk that has been stamped, with its number in the stream."""
    answer = ChatCompletion()
    stamp(answer, "m", "session")
    answer.system_fingerprint = fingerprint
    fast, slow = StreamShaper(answer), StreamShaper(answer)
    assert fast.shape_text(_plain(_chunk())) == slow.shape(_chunk())
    for _ in range(sequence - 1):
        shaped, (expected,) = fast.shape_text(_plain(_chunk())), slow.shape(_chunk())
    assert isinstance(shaped, PlainText)
    assert (expected, sequence) == (as_chunk(shaped), expected.sequence)


@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_plain_texts_are_those_of_their_chunks(kind: TextKind) -> None:
    """The answer is the same, and so is the size at which it is too large."""
    chunks = [_chunk(text, kind=kind) for text in ("a", TEXT, "x" * 100)]
    size = sum(chunk.ByteSize() for chunk in chunks)
    for limit in (size, size - 1):
        answers = []
        for stream in (chunks, [_plain(chunk) for chunk in chunks]):
            accumulator = BoundedAccumulator(ChatCompletion(), limit)
            for part in stream:
                accumulator.add(part)
            answers.append(accumulator.completion())
        assert answers[0] == answers[1]
        assert (limit == size) == bool(answers[0].choices)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("place", "name"), [item for item in _fields() if item[1] not in OWN])
def test_any_other_field_is_not_plain(place: int, name: str, kind: str) -> None:
    """A chunk with another field, at any level and even with an empty value, is not plain text."""
    chunk = _chunk(kind=kind)
    _set(_places(chunk)[place], name)
    assert plain_text(chunk) is None


def test_other_choices_and_long_or_empty_texts_are_not_plain() -> None:
    """Text of a second choice or of no named choice, no text, and a text of more than 100 bytes are not plain."""
    unnamed = _chunk()
    unnamed.choices[0].ClearField("index")
    unnamed.choices[0].delta.role = ""
    no_choice = ChatCompletionChunk()
    for chunk in (_chunk(index=1), unnamed, no_choice, _chunk(""), _chunk("x" * 101)):
        assert plain_text(chunk) is None


def _events(writer: EventWriter, batch: Batch) -> bytes:
    return writer.text_event(batch) if isinstance(batch, PlainText) else b"".join(writer.events(batch))


@pytest.mark.parametrize("kinds", [KINDS[:1], KINDS[1:], KINDS], ids=len)
@pytest.mark.parametrize("nulls", [True, False])
def test_events_of_plain_text_are_those_of_other_chunks(nulls: bool, kinds: Sequence[TextKind]) -> None:
    """The event of plain text has the bytes that the chunk has otherwise, also after kind or fingerprint changes."""
    answer = ChatCompletion()
    stamp(answer, "m", "session")
    shaper, fast, slow = StreamShaper(answer), *(EventWriter(include_usage=False, nulls=nulls) for _ in range(2))
    types = []
    for fingerprint in ("", "fp_1", "fp_2"):
        first = _chunk("first")
        if fingerprint:
            first.system_fingerprint = fingerprint
        for chunk in (first, *(_chunk(text, kind=kind) for text in (TEXT, '"\n') for kind in kinds)):
            plain = plain_text(chunk)
            batch = shaper.shape(chunk) if plain is None else shaper.shape_text(plain)
            types.append(type(batch))
            assert b"".join(slow.event(as_chunk(part)) for part in parts(batch)) == _events(fast, batch)
    assert [list, *([PlainText] * 2 * len(kinds))] * 3 == types


@pytest.mark.parametrize("nulls", [True, False])
@pytest.mark.parametrize(
    "choice",
    [
        *(ChunkChoice(index=index, delta=Delta(content=TEXT)) for index in (0, 1)),
        ChunkChoice(index=1, delta=Delta(reasoning_content=TEXT)),
        ChunkChoice(index=0, delta=Delta(refusal=TEXT)),
        ChunkChoice(index=0, delta=Delta(content="")),
        ChunkChoice(index=0, delta=Delta(role="assistant", content="")),
        ChunkChoice(index=0, delta=Delta(role="assistant", reasoning_content=TEXT)),
        ChunkChoice(index=1, delta=Delta(), finish_reason="stop"),
        ChunkChoice(index=0, delta=Delta(), finish_reason="length", extra_json='{"a": 1}'),
        ChunkChoice(index=0, delta=Delta(content=TEXT), finish_reason="stop"),
    ],
)
def test_an_event_has_the_json_of_its_choice(choice: ChunkChoice, nulls: bool) -> None:
    """Every way to write a choice writes the same JSON, with `finish_reason` and, if asked for, the other nulls."""
    expected: dict[str, Any] = from_message(choice, nulls=nulls)
    expected = expected if nulls else {"index": 0, "delta": {}, "finish_reason": None} | expected
    for _ in range(2):
        written = EventWriter(include_usage=False, nulls=nulls).event(ChatCompletionChunk(id="x", choices=[choice]))
        assert [expected] == orjson.loads(written.removeprefix(b"data: "))["choices"]
