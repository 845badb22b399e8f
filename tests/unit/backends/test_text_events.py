"""The fast path for streams whose events differ in their text only: it reads what the usual path reads."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from parley.backends.openai.choice import ExpectedAnswer
from parley.backends.openai.stream import StreamReader
from parley.backends.openai.text_events import TextEvents
from parley.core.ports.plain_text import MAX_TEXT_SIZE, PlainText
from parley.core.streaming.plain_text import as_chunk
from parley.v1.chat_completions_pb2 import ChatCompletionChunk, CreateChatCompletionRequest

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
        *[event(f'"reasoning_content":"{text}"') for text in ("hm", " so", "", "ü", r"\n", r"\"")],
        event('"reasoning":"hm"'),
        event('"reasoning":"hm","reasoning_content":"hm"'),
        event('"content":null,"reasoning_content":"hm"'),
        event('"reasoning_content":null,"content":"a","tool_calls":[],"refusal":""'),
        event('"role":"assistant","content":"b"'),
        event('"content":"c","unknown":null'),
        *[event(rf'"content":"{text}","c\u006fntent":"twice"') for text in "ab"],
        *[event(rf'"c\u006fntent":"twice","content":"{text}"') for text in "ab"],
        event('"content":"d","function_call":{}'),
        event('"content":0,"reasoning_content":"hm"'),
        event('"content":"t"', before='"system_fingerprint":"one",'),
        event('"content":"t"', before='"system_fingerprint":"two",'),
        event('"content":"t"', after=',"unknown":{"content":"u"}'),
        event('"content":"t"', after=',"obfuscation":"content"'),
        *[event(f'"content":"{text}"', after=f',"obfuscation":"{pad}"') for text in "ab" for pad in ("x1", "yy2", "")],
        event(r'"content":"t\""', after=',"obfuscation":"x"'),
        event(r'"content":"t\\"', after=',"obfuscation":"x"'),
        event(r'"content":"\"},\"finish_reason\":null}],\"obfuscation\":\""', after=',"obfuscation":"x"'),
        event('"content":"t"', after=',"obfuscation":"x","obfuscation":"y"'),
        event('"content":"t"', after=',"obfuscation":"x","unknown":"y"'),
        event('"content":"t"', after=r',"obfuscation":"\n"'),
        event('"content":"t"', before='"obfuscation":"x",'),
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


def read(pieces: list[bytes], n: int, delivered: str = "") -> Any:
    """Returns the joined output of each choice, the other fields, and how the stream ended."""
    fields: list[str] = []
    request = CreateChatCompletionRequest(n=n)
    reader = StreamReader(ExpectedAnswer(request, delivered, on_reasoning=fields.append))
    texts: dict[tuple[int, str], str] = {}
    reasons: list[str] = []
    others: dict[str, Any] = {}
    for piece in (*pieces, b""):
        part = None if reader.ended else reader.feed(piece)
        chunk = as_chunk(part) if part else None
        for choice in chunk.choices if chunk else ():
            for field, value in choice.delta.ListFields():
                texts[choice.index, field.name] = texts.get((choice.index, field.name), "") + str(value)
            reasons += [choice.finish_reason] if choice.finish_reason else []
        if chunk:
            del chunk.choices[:]
            others |= MessageToDict(chunk)
    return texts, sorted(reasons), others, fields, reader.started, reader.is_complete, repr(reader.failure)


RUNS = st.lists(st.tuples(EVENTS, st.integers(1, 4)), max_size=8)
FORMS = st.sampled_from([b"data: %s\n\n", b"data: %s\r\n\r\n", b"data:%s\n\n"])
DELIVERED = st.sampled_from(["", "", "a", "a b", "aaa bb"])
"""What the caller already has; its repetition is removed."""


@given(RUNS, FORMS, st.integers(1, 2), DELIVERED)
def test_events_that_arrive_alone_are_the_same(
    runs: list[tuple[bytes, int]], form: bytes, n: int, delivered: str
) -> None:
    """Most texts arrive so, and become plain text without a chunk."""
    events = [one for one, times in runs for _ in range(times)] + [b"[DONE]"]
    usual = [b":\ndata: %s\n\n" % one for one in events]
    assert read(usual, n, delivered) == read([form % one for one in events], n, delivered)


@given(RUNS, FORMS, st.lists(st.integers(0, 2000), max_size=4), st.integers(1, 2), DELIVERED)
def test_both_paths_read_the_same(
    runs: list[tuple[bytes, int]], form: bytes, cuts: list[int], n: int, delivered: str
) -> None:
    """Each event counts the same, whether it is read alone or in a run, and wherever the stream is cut.

    An event with a comment takes the usual path.
    """
    events = [one for one, times in runs for _ in range(times)]
    fast = b"".join(form % one for one in (*events, b"[DONE]"))
    usual = [b":\ndata: %s\n\n" % one for one in (*events, b"[DONE]")]
    places = sorted({0, len(fast), *(cut % (len(fast) + 1) for cut in cuts)})
    pieces = [fast[start:end] for start, end in pairwise(places)]
    assert read(usual, n, delivered) == read(pieces, n, delivered)


def test_a_repetition_is_removed_from_events_that_arrive_alone() -> None:
    """Text of a choice that begins with what the caller already has is no plain text."""
    events = [b"data: %s\n\n" % event(f'"content":"{text}"') for text in ("Hello", " world,", " this", " is", " new")]
    texts, *_ = read(events, 1, "Hello world, this is")
    assert {(0, "content"): " new"} == texts


RESTS = (b"", b"data: [DONE]\n\n", b"data: " + event('"content":"x"')[:-5], b": comment\n\n")


def learned(delta: str = '"content":"x"', after: str = "", form: bytes = b"data: %s\n\n") -> TextEvents:
    """Returns the reader after a text event."""
    texts = TextEvents()
    data = event(delta, after=after)
    assert len(form % data) == texts.next_end(form % data, 0)
    texts.learn(form % data, data)
    return texts


@pytest.mark.parametrize("form", [b"data: %s\n\n", b"data: %s\r\n\r\n", b"data:%s\n\n"])
@pytest.mark.parametrize(
    "delta",
    [
        '"content":"%s"',
        '"content": "%s"',
        '"reasoning_content":"%s"',
        '"reasoning":"%s"',
        '"content":null,"reasoning_content":"%s"',
        '"reasoning_content":null,"content":"%s"',
        '"role":"assistant","content":"%s"',
    ],
)
@pytest.mark.parametrize("rest", RESTS)
def test_a_run_is_read_at_once(delta: str, form: bytes, rest: bytes) -> None:
    """Events up to the first other or incomplete one are one text, whatever surrounds it."""
    run = b"".join(form % event(delta % text) for text in ("Hel", "", r"lo\n", "ü"))
    assert ("Hello\nü", len(run) + 2) == learned(delta % "x", form=form).take(b"\n\n" + run + rest, 2)


@pytest.mark.parametrize("rest", RESTS)
def test_padding_may_differ(rest: bytes) -> None:
    """Events that also differ in their padding are one text."""
    padding = ',"usage":null,"obfuscation":"%s"'
    pairs = (("Hel", "a"), ("", "B2b"), (r"lo\n", "x"), (r"\"", "c3"), ("ü", "dd"))
    run = b"".join(b"data: %s\n\n" % event(f'"content":"{text}"', after=padding % pad) for text, pad in pairs)
    assert ('Hello\n"ü', len(run)) == learned(after=padding % "abc").take(run + rest, 0)


def test_an_event_alone() -> None:
    """Its text is found if the event is complete, and nothing but the text and the padding differ."""
    form, padding = b"data: %s\n\n", ',"obfuscation":"%s"'
    texts, padded = learned(), learned(after=padding % "abc")
    for text in ("Hel", r"lo\n", r"\"", "ü"):
        alone = form % event(f'"content":"{text}"')
        assert orjson.loads(f'"{text}"') == texts.text_of(alone)
        assert orjson.loads(f'"{text}"') == padded.text_of(form % event(f'"content":"{text}"', after=padding % "b2"))
        for other in (alone * 2, alone[:-1], b"\n" + alone, form % event(f'"content":"{text}","role":"x"'), b""):
            assert texts.text_of(other) is None
    for text in ("", "x" * (MAX_TEXT_SIZE + 1)):
        assert texts.text_of(form % event(f'"content":"{text}"')) is None
        assert padded.text_of(form % event(f'"content":"{text}"', after=padding % "b2")) is None
    for after in ("", padding % "", padding % "b c", padding % 'b","unknown":"c', padding % 'b","obfuscation":"c'):
        assert padded.text_of(form % event('"content":"x"', after=after)) is None


def test_an_event_after_a_part_of_another_is_not_alone() -> None:
    """The bytes of an incomplete line, or of an event without its end, change what follows them."""
    text = b"data: %s\n\n" % event('"content":"x"')
    for part in (b":", b"data: 1\n", b"id", text[:-1], text[:-2], text[:20]):
        assert read([text * 2 + part + text * 2], 1) == read([text, text, part, text, text], 1)


def test_a_long_text_is_a_chunk() -> None:
    """Plain text is short."""
    reader = StreamReader(ExpectedAnswer(CreateChatCompletionRequest()))
    reader.feed(b"data: %s\n\n" % event('"content":"x"'))
    sizes = {}
    for text in ("x" * MAX_TEXT_SIZE, "x" * (MAX_TEXT_SIZE + 1), "ü" * MAX_TEXT_SIZE, "ü" * (MAX_TEXT_SIZE // 2)):
        sizes[text] = type(reader.feed(b"data: %s\n\n" % event(f'"content":"{text}"')))
    assert [PlainText, ChatCompletionChunk, ChatCompletionChunk, PlainText] == list(sizes.values())


def test_a_text_may_have_escapes() -> None:
    """Servers that write JSON in ASCII escape every letter of most languages."""
    run = b"".join(b"data: %s\n\n" % event(rf'"content":"{text}"') for text in (r"\u4f60", r"\u597d"))
    assert ("\u4f60\u597d", len(run)) == learned(r'"content":"\u4e2d"').take(run, 0)


@pytest.mark.parametrize("text", [b'","role":"x', b"\\", b"\x01", b"\xff", b"\\x"])
def test_no_text(text: bytes) -> None:
    """A text that is no JSON string leaves the events to the usual path."""
    data = event('"content":"?"').replace(b"?", text)
    with pytest.raises(ValueError, match=r"."):
        learned().take(b"data: %s\n\n" % data * 3, 0)


def test_a_server_whose_events_all_differ() -> None:
    """After some events that no other one equals, none is learned any more."""
    texts = TextEvents()
    for number in range(20):
        data = event('"content":"x"', after=f',"nonce":"{number}"')
        texts.learn(b"data: %s\n\n" % data, data)
    assert not texts.may_learn


def test_an_answer_is_complete_from_its_finish_reason_until_it_goes_on() -> None:
    """Text after a finish reason shows that the answer has not ended, also where it is read fast."""
    reader = StreamReader(ExpectedAnswer(CreateChatCompletionRequest()))
    events = (event('"content":"a"'), event("", reason='"stop"'), *(event(f'"content":"{text}"') for text in "bcd"))
    complete = []
    for data in events:
        reader.feed(b"data: %b\n\n" % data)
        complete.append(reader.is_complete)
    assert [False, True, False, False, False] == complete
