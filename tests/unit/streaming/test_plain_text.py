"""Which chunks are plain text."""

from collections.abc import Iterator
from typing import Any

import pytest

from parley.core.streaming.plain_text import PlainText, plain_text
from parley.core.streaming.shaper import StreamShaper, stamp
from parley.rpc.sse import EventWriter
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta

OWN = {"content", "delta", "index"}
"""The fields of plain text that have presence."""
TEXT = "né \U0001f600"


def _chunk(text: str = TEXT, index: int = 0) -> ChatCompletionChunk:
    return ChatCompletionChunk(choices=[ChunkChoice(index=index, delta=Delta(content=text))])


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


@pytest.mark.parametrize("text", ["a", TEXT, "x" * 100, "é" * 50], ids=len)
def test_a_short_text_is_plain(text: str) -> None:
    """A chunk with a short text and nothing else is plain text."""
    assert text == plain_text(_chunk(text))


@pytest.mark.parametrize(("place", "name"), [item for item in _fields() if item[1] not in OWN])
def test_any_other_field_is_not_plain(place: int, name: str) -> None:
    """A chunk with another field, at any level and even with an empty value, is not plain text."""
    chunk = _chunk()
    _set(_places(chunk)[place], name)
    assert "" == plain_text(chunk)


def test_other_choices_and_long_or_empty_texts_are_not_plain() -> None:
    """Text of a second choice or of no named choice, no text, and a text of more than 100 bytes are not plain."""
    unnamed = _chunk()
    unnamed.choices[0].ClearField("index")
    unnamed.choices[0].delta.role = ""
    no_choice = ChatCompletionChunk()
    for chunk in (_chunk(index=1), unnamed, no_choice, _chunk(""), _chunk("x" * 101)):
        assert "" == plain_text(chunk)


@pytest.mark.parametrize("nulls", [True, False])
def test_events_of_plain_text_are_those_of_other_chunks(nulls: bool) -> None:
    """The event of plain text has the bytes that the chunk has otherwise, also after the fingerprint has changed."""
    answer = ChatCompletion()
    stamp(answer, "m", "session")
    shaper, fast, slow = StreamShaper(answer), *(EventWriter(include_usage=False, nulls=nulls) for _ in range(2))
    kinds = []
    for fingerprint in ("", "fp_1", "fp_2"):
        first = _chunk("first")
        if fingerprint:
            first.system_fingerprint = fingerprint
        for chunk in (first, _chunk(), _chunk('"\n')):
            text = plain_text(chunk)
            batch = shaper.shape_text(PlainText(chunk, text)) if text else shaper.shape(chunk)
            kinds.append(type(batch))
            assert b"".join(map(slow.event, batch)) == fast.events(batch)
    assert [list, PlainText, PlainText] * 3 == kinds
