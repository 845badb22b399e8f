"""The parser of server-sent events."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.backends.http.sse import MAX_EVENT, EventReader, EventTooLong

Found = list[tuple[bytes, bytes]]


def read(*pieces: bytes) -> Found:
    """Returns the events of a stream that arrives in these chunks."""
    reader = EventReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events + reader.end()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [(b"", b"a"), (b"", b"b")]),
        (b"data: a\r\rdata: b\r\r", [(b"", b"a"), (b"", b"b")]),
        (b"data:a\n\n", [(b"", b"a")]),
        (b"data:  a\n\n", [(b"", b" a")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b": keep-alive\n\ndata: a\n: more\nid: 7\nretry: 3\n\n", [(b"", b"a")]),
        (b"event: error\ndata: a\n\ndata: b\n\n", [(b"error", b"a"), (b"", b"b")]),
        (b"event: ping\n\ndata: b\n\n", [(b"", b"b")]),
        (b"\n\n\n", []),
        (b"data\n\n", [(b"", b"")]),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
        (b"data: a", [(b"", b"a")]),
        (b"data: a\n", [(b"", b"a")]),
        (b"data: \xe2\x82\xac\n\n", [(b"", b"\xe2\x82\xac")]),
        (b"", []),
    ],
)
def test_events(stream: bytes, events: Found) -> None:
    """Lines are parsed as in the HTML standard; the end of the stream completes the last event."""
    assert events == read(stream)


LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data: \xe2\x82\xac", b"data: \xef\xbb\xbf", b"event: error", b": hi", b"", b"", b"x"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(LINES, ENDS)), st.lists(st.integers(0, 200)), st.booleans())
def test_any_split(lines: list[tuple[bytes, bytes]], cuts: list[int], begins_with_bom: bool) -> None:
    """The events do not depend on the split of the bytes."""
    stream = (b"\xef\xbb\xbf" if begins_with_bom else b"") + b"".join(line + end for line, end in lines)
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert read(stream) == read(*pieces)
    assert read(stream) == read(*(stream[start : start + 1] for start in range(len(stream))))


@pytest.mark.parametrize("step", [1000, MAX_EVENT + 1])
def test_endless_line(step: int) -> None:
    """A line over the limit fails, however small its chunks are."""
    with pytest.raises(EventTooLong):
        read(*[b"x" * step] * (MAX_EVENT // step + 1))


def test_endless_event() -> None:
    """An event over the limit fails, however many lines it has."""
    with pytest.raises(EventTooLong):
        read(*[b"data: " + b"x" * 1000 + b"\n"] * (MAX_EVENT // 1000 + 1))


def test_longest_event() -> None:
    """An event of the maximum length is parsed."""
    data = b"x" * (MAX_EVENT - len(b"data: "))
    assert [(b"", data)] == read(b"data: " + data[:65530], data[65530:], b"\n\n")
