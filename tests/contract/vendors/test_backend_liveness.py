"""When a backend's silence is a failure: no first token, no bytes, no tokens; and when it is not."""

import asyncio
import time

import pytest

from parley.backends import deadlines
from parley.backends.http import watchdog
from parley.backends.parley.backend import Parley
from parley.config import Timeouts
from parley.core.errors import StreamBroken, UpstreamTimeout
from parley.core.ports import Backend
from parley.v1.message_pb2 import Delta
from tests import upstream as openai
from tests.contract import anthropic_api as anthropic
from tests.contract.backends import (
    KEY,
    Mark,
    broken_off,
    call,
    collect,
    failure,
    reasons,
    text,
)
from tests.contract.http_vendors import ANTHROPIC, OPENAI, HttpVendor
from tests.contract.parley_vendor import Answer, ScriptedParley, chunk, chunks
from tests.upstream import Delay, Events, Gate, Raw, ScriptedUpstream, Stall, Step

COMMENT = b": keep-alive\n\n"
BLANK = b"\n"
LONG = 8.0
"""Seconds that no test waits for: what is bounded by it is not bounded by what the test is about."""


def _beats(beat: Step, count: int) -> list[Step]:
    """A sign of life every 50 ms."""
    return [step for _ in range(count) for step in (Delay(0.05), beat)]


def test_the_defaults_fit_models_that_reason() -> None:
    """Servers were measured silent for 32 s over arguments, and for 94 s before the first token."""
    times = Timeouts()
    assert (5, 120, 120, 120, 600) == (
        times.connect,
        times.first_token,
        times.stream_idle,
        times.stall,
        times.total,
    )


@pytest.mark.parametrize("beat", [COMMENT, BLANK, b":\n"], ids=["comments", "blank lines", "bare colons"])
async def test_any_byte_is_a_sign_of_life(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, beat: bytes
) -> None:
    """A stream lives on comments and blank lines for longer than `stream_idle`, before its first token and after."""
    upstream.answer(Events([*_beats(beat, 8), *vendor.stream("Hel", *_beats(beat, 8), "lo.", Mark.END).events]))  # type: ignore[arg-type]
    timeouts = {"stream_idle": 0.3, "first_token": LONG, "stall": LONG}
    assert "Hello." == text(await collect(backend, call(timeouts=timeouts)))


async def test_comments_do_not_replace_the_first_token(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """However lively a stream is, its first token must come within `first_token`."""
    upstream.answer(Events([*_beats(COMMENT, 100), Stall()]))
    timeouts = {"first_token": 0.2, "stream_idle": LONG, "stall": LONG}
    failed = await failure(backend, call(timeouts=timeouts), stream=True)
    assert UpstreamTimeout is type(failed)


async def test_comments_do_not_replace_tokens(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A stream that says something and then only comments is broken off after `stall`."""
    upstream.answer(vendor.stream("Hel", *_beats(COMMENT, 100), Stall()))  # type: ignore[arg-type]
    started = time.monotonic()
    said, failed = await broken_off(backend, call(timeouts={"stall": 0.3, "stream_idle": LONG}))
    assert ("Hel", StreamBroken) == (text(said), type(failed))
    assert 0.3 <= time.monotonic() - started < LONG / 2
    assert await upstream.requests[0].closed.arrives(1)


async def test_a_token_in_time_is_enough(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """`stall` begins anew with each token."""
    pieces = [step for word in ("Hel", "lo", ", ", "you", ".") for step in (word, *_beats(COMMENT, 4))]
    upstream.answer(vendor.stream(*pieces, Mark.END))  # type: ignore[arg-type]
    assert "Hello, you." == text(await collect(backend, call(timeouts={"stall": 0.5})))


EMPTY_DELTAS = [
    (OPENAI, openai.chunk({"content": ""})),
    (OPENAI, openai.chunk({})),
    (OPENAI, openai.chunk({"role": "assistant", "content": None})),
    (OPENAI, openai.chunk(choices=[])),
    (ANTHROPIC, anthropic.event("ping")),
    (ANTHROPIC, anthropic.delta(text="")),
]


@pytest.mark.parametrize(("vendor", "beat"), EMPTY_DELTAS, ids=range(len(EMPTY_DELTAS)))
async def test_events_without_a_token_are_a_stall(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, beat: Step
) -> None:
    """Pings and empty deltas are bytes, and no tokens."""
    upstream.answer(Events([*vendor.stream("Hel").events, *_beats(beat, 100), Stall()]))
    said, failed = await broken_off(backend, call(timeouts={"stall": 0.3, "stream_idle": LONG}))
    assert ("Hel", StreamBroken) == (text(said), type(failed))


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "find", "arguments": ""}}
ARGUMENTS = {"index": 0, "function": {"arguments": '{"place": "Rome"}'}}
TOOL_CALLS: list[tuple[HttpVendor, list[Step], list[Step]]] = [
    (
        OPENAI,
        [openai.chunk({"role": "assistant", "tool_calls": [CALL]})],
        [openai.chunk({"tool_calls": [ARGUMENTS]}), *openai.ending("tool_calls")],
    ),
    (
        OPENAI,
        [openai.chunk({"role": "assistant", "function_call": {"name": "find", "arguments": ""}})],
        [openai.chunk({"function_call": ARGUMENTS["function"]}), *openai.ending("function_call")],
    ),
    (
        ANTHROPIC,
        [anthropic.start(), anthropic.block_start(type="tool_use", id="toolu_1", name="find", input={})],
        [
            anthropic.delta("input_json_delta", partial_json='{"place": "Rome"}'),
            anthropic.block_stop(),
            *anthropic.stopped("tool_use"),
        ],
    ),
]
buffering = pytest.mark.parametrize(("vendor", "start", "rest"), TOOL_CALLS, ids=["tool", "function", "anthropic"])


@buffering
async def test_arguments_that_are_buffered_are_no_stall(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, start: list[Step], rest: list[Step]
) -> None:
    """From the start of a tool call on, comments say that the server is at work on its arguments."""
    upstream.answer(Events([*start, *_beats(COMMENT, 10), *rest]))
    said = await collect(backend, call(timeouts={"stall": 0.2, "stream_idle": LONG}))
    assert 1 == len(reasons(said))


@buffering
async def test_a_server_that_says_nothing_buffers_nothing(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, start: list[Step], rest: list[Step]
) -> None:
    """Without a byte, `stream_idle` bounds a tool call too."""
    upstream.answer(Events([*start, Stall(), *rest]))
    _, failed = await broken_off(backend, call(timeouts={"stream_idle": 0.2}))
    assert StreamBroken is type(failed)


@pytest.mark.parametrize("vendor", [OPENAI], ids=repr)
async def test_a_complete_answer_does_not_wait_for_a_stream_left_open(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last `finish_reason` the usage and `[DONE]` have ten seconds, here 0.2; then the answer is whole."""
    monkeypatch.setattr(watchdog, "TAIL_SECONDS", 0.2)
    upstream.answer(Events([*openai.chunks("Hello."), openai.chunk(finish="stop"), *_beats(COMMENT, 1), Stall()]))
    async with asyncio.timeout(LONG):
        said = await collect(backend, call())
    assert ("Hello.", ["stop"]) == (text(said), reasons(said))


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_BLANK_LINE = b"1\r\n\n\r\n"


async def test_blank_lines_before_a_whole_answer(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """They are signs of life, as DeepSeek sends them, and no part of the answer."""
    body = vendor.complete_answer("Hello.").steps()[1]
    assert isinstance(body, bytes)
    data = body.partition(b"\r\n\r\n")[2]
    last = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
    upstream.answer(Raw([_HEAD, *_beats(_BLANK_LINE, 10), last]))
    answer = await backend.complete(call(timeouts={"stream_idle": 0.3, "first_token": 0.1, "stall": 0.1}))
    assert "Hello." == answer.choices[0].message.content.string_value


async def test_a_whole_answer_that_falls_silent(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """Once it has sent bytes, `stream_idle` bounds the silence between them, not what is left of `total`."""
    upstream.answer(Raw([_HEAD, _BLANK_LINE, Stall()]))
    async with asyncio.timeout(LONG):
        failed = await failure(backend, call(timeouts={"stream_idle": 0.2}))
    assert UpstreamTimeout is type(failed)


async def test_another_parley_that_sends_no_tokens() -> None:
    """Empty deltas are messages, and no tokens."""
    empty = [step for _ in range(100) for step in (Delay(0.05), chunk(Delta()))]
    with ScriptedParley() as upstream:
        backend = Parley(upstream.address, KEY)
        upstream.answer(Answer([*chunks("Hel"), *empty]))
        said, failed = await broken_off(backend, call(timeouts={"stall": 0.3, "stream_idle": LONG}))
        assert ("Hel", StreamBroken) == (text(said), type(failed))
        await backend.close()


async def test_another_parley_that_leaves_its_stream_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is complete with its last `finish_reason`."""
    monkeypatch.setattr(deadlines, "TAIL_SECONDS", 0.2)
    gate = Gate()
    with ScriptedParley() as upstream:
        backend = Parley(upstream.address, KEY)
        upstream.answer(Answer([*chunks("Hello."), chunk(finish="stop"), gate]))
        async with asyncio.timeout(LONG):
            said = await collect(backend, call())
        assert ("Hello.", ["stop"]) == (text(said), reasons(said))
        gate.set()
        await backend.close()
