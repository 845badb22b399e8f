"""The fast path for streams whose events differ in their text only: it reads what the usual path reads."""

from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from parley.backends.openai.choice import ExpectedAnswer
from parley.backends.openai.stream import StreamReader
from parley.backends.openai.text_events import TextEvents
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

DELTA = '{"id":"a","model":"m",%s"choices":[{"index":%d,"delta":{%s},"finish_reason":%s}]%s}'


def event(delta: str, *, index: int = 0, reason: str = "null", before: str = "", after: str = "") -> bytes:
    """Returns the data of an event."""
    return (DELTA % (before, index, delta, reason, after)).encode()


EVENTS = st.sampled_from(
    [
        *[event(f'"content":"{text}"') for text in ("a", " b", "", "ü", r"\n", r"\"", "\\\\", r"\u00e4")],
        event('"content": "spaced"'),
        event('"content":"of another choice"', index=1),
        event('"role":"assistant","content":""'),
        event('"content":"a","content":"b"'),
        event('"content":"x","refusal":"no"'),
        event('"reasoning_content":"hm"'),
        event('"content":"t"', before='"system_fingerprint":"one",'),
        event('"content":"t"', before='"system_fingerprint":"two",'),
        event('"content":"t"', after=',"unknown":{"content":"u"}'),
        event('"content":"t"', after=',"obfuscation":"content"'),
        event('"content":"last"', reason='"stop"'),
        event("", reason='"stop"'),
        event('"content":"\x01"'),
        event('"content":"' + r"\ud83d" + '"'),
        event('"content":"' + r"\ude00" + '"'),
        event('"content":"?"').replace(b"?", b"\xe2\x82"),
        event('"content":"?"').replace(b"?", b"\xac"),
        event('"content":"a')[:60],
        b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}',
        b"heartbeat",
    ]
)


def read(pieces: list[bytes], n: int) -> Any:
    """Returns the joined output of each choice, the other fields, and how the stream ended."""
    reader = StreamReader(ExpectedAnswer(CreateChatCompletionRequest(n=n)))
    texts: dict[tuple[int, str], str] = {}
    reasons: list[str] = []
    others: dict[str, Any] = {}
    for piece in (*pieces, b""):
        chunk = None if reader.ended else reader.feed(piece)
        for choice in chunk.choices if chunk else ():
            for field, value in choice.delta.ListFields():
                texts[choice.index, field.name] = texts.get((choice.index, field.name), "") + str(value)
            reasons += [choice.finish_reason] if choice.finish_reason else []
        if chunk:
            del chunk.choices[:]
            others |= MessageToDict(chunk)
    return texts, sorted(reasons), others, reader.started, reader.is_complete, repr(reader.failure)


@given(st.lists(EVENTS, max_size=12), st.lists(st.integers(0, 2000), max_size=4), st.integers(1, 2))
def test_both_paths_read_the_same(events: list[bytes], cuts: list[int], n: int) -> None:
    """Each event counts the same, whether it is read alone or in a run, and wherever the stream is cut.

    The fast path applies to `data: ` only, so a stream without the space takes the usual path.
    """
    fast = b"".join(b"data: %s\n\n" % one for one in events) + b"data: [DONE]\n\n"
    usual = [b"data:%s\n\n" % one for one in events] + [b"data:[DONE]\n\n"]
    places = sorted({0, len(fast), *(cut % (len(fast) + 1) for cut in cuts)})
    pieces = [fast[start:end] for start, end in pairwise(places)]
    assert read(usual, n) == read(pieces, n)


def learned(text: bytes = b"x") -> TextEvents:
    """Returns the reader after a text event."""
    texts = TextEvents()
    data = event('"content":"?"').replace(b"?", text)
    texts.learn(b"data: %s\n\n" % data, data)
    return texts


def test_a_run_is_read_at_once() -> None:
    """Events up to the first other or incomplete one are one text."""
    run = b"".join(b"data: %s\n\n" % event(f'"content":"{text}"') for text in ("Hel", "", r"lo\n", "ü"))
    for rest in (b"", b"data: [DONE]\n\n", b"data: " + event('"content":"x"')[:-5], b": comment\n\n"):
        assert ("Hello\nü", len(run) + 2) == learned().take(b"\n\n" + run + rest, 2)


@pytest.mark.parametrize("text", [b'","role":"x', b"\\", b"\x01", b"\xff", b"\\x"])
def test_no_text(text: bytes) -> None:
    """A text that is no JSON string leaves the events to the usual path."""
    data = event('"content":"?"').replace(b"?", text)
    with pytest.raises(ValueError, match=r"."):
        learned().take(b"data: %s\n\n" % data * 2, 0)


def test_a_server_whose_events_all_differ() -> None:
    """After some events that no other one equals, none is learned any more."""
    texts = TextEvents()
    for number in range(20):
        data = event('"content":"x"', after=f',"obfuscation":"{number}"')
        texts.learn(b"data: %s\n\n" % data, data)
    assert not texts.may_learn
