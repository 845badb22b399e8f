"""Timeouts of silent streams: no first token, no bytes, no further tokens."""

import asyncio
import time

import pytest

from parley.backends import deadlines
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
from tests.contract.parley_vendor import chunk, chunks, other_parley
from tests.contract.scripted_parley import Answer, ScriptedParley
from tests.upstream import Delay, Events, Gate, Raw, ScriptedUpstream, Stall, Step

COMMENT = b": keep-alive\n\n"
BLANK = b"\n"
LONG = 8.0
"""Seconds; long enough that a timeout of this length does not fire in a test of another timeout."""


def _beats(beat: Step, count: int) -> list[Step]:
    """Returns `count` keep-alive steps at intervals of 50 ms."""
    return [step for _ in range(count) for step in (Delay(0.05), beat)]


def test_the_defaults_fit_models_that_reason() -> None:
    """The defaults exceed measured silences: 32 s in tool arguments, 94 s before the first token."""
    times = Timeouts()
    assert (5, 120, 120, 120, 600) == (
        times.connect,
        times.first_token,
        times.stream_idle,
        times.stall,
        times.total,
    )


@pytest.mark.parametrize("beat", [COMMENT, BLANK, b":\n"], ids=["comments", "blank lines", "bare colons"])
async def test_any_byte_resets_stream_idle(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, beat: bytes
) -> None:
    """Comments and blank lines reset `stream_idle`, before and after the first token."""
    upstream.answer(Events([*_beats(beat, 8), *vendor.stream("Hel", *_beats(beat, 8), "lo.", Mark.END).events]))  # type: ignore[arg-type]
    timeouts = {"stream_idle": 0.3, "first_token": LONG, "stall": LONG}
    assert "Hello." == text(await collect(backend, call(timeouts=timeouts)))


async def test_comments_do_not_replace_the_first_token(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """`first_token` applies even if the stream sends comments."""
    upstream.answer(Events([*_beats(COMMENT, 100), Stall()]))
    timeouts = {"first_token": 0.2, "stream_idle": LONG, "stall": LONG}
    failed = await failure(backend, call(timeouts=timeouts), stream=True)
    assert UpstreamTimeout is type(failed)


async def test_comments_do_not_replace_tokens(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """`stall` applies if only comments follow a token."""
    upstream.answer(vendor.stream("Hel", *_beats(COMMENT, 100), Stall()))  # type: ignore[arg-type]
    started = time.monotonic()
    delivered, failed = await broken_off(backend, call(timeouts={"stall": 0.3, "stream_idle": LONG}))
    assert ("Hel", StreamBroken) == (text(delivered), type(failed))
    assert 0.3 <= time.monotonic() - started < LONG / 2
    assert await upstream.requests[0].closed.arrives(1)


@pytest.mark.parametrize("between", [_beats(COMMENT, 4), [Delay(0.2)]], ids=["with a comment", "alone"])
async def test_each_token_resets_stall(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, between: list[Step]
) -> None:
    """Each token resets `stall`."""
    pieces = [step for word in ("Hel", "lo", ", ", "you", ".") for step in (word, *between)]
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
    """Pings and empty deltas do not reset `stall`."""
    upstream.answer(Events([*vendor.stream("Hel").events, *_beats(beat, 100), Stall()]))
    delivered, failed = await broken_off(backend, call(timeouts={"stall": 0.3, "stream_idle": LONG}))
    assert ("Hel", StreamBroken) == (text(delivered), type(failed))


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
async def test_stall_does_not_apply_to_buffered_arguments(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, start: list[Step], rest: list[Step]
) -> None:
    """`stall` does not apply after the start of a tool call, while comments arrive."""
    upstream.answer(Events([*start, *_beats(COMMENT, 10), *rest]))
    delivered = await collect(backend, call(timeouts={"stall": 0.2, "stream_idle": LONG}))
    assert 1 == len(reasons(delivered))


@buffering
async def test_stream_idle_applies_to_tool_calls(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, start: list[Step], rest: list[Step]
) -> None:
    """`stream_idle` applies to a tool call, too."""
    upstream.answer(Events([*start, Stall(), *rest]))
    _, failed = await broken_off(backend, call(timeouts={"stream_idle": 0.2}))
    assert StreamBroken is type(failed)


@pytest.mark.parametrize("vendor", [OPENAI], ids=repr)
async def test_complete_answer_ends_a_stream_left_open(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream left open ends TAIL_SECONDS after the last `finish_reason`, without an error."""
    monkeypatch.setattr(deadlines, "TAIL_SECONDS", 0.2)
    upstream.answer(Events([*openai.chunks("Hello."), openai.chunk(finish="stop"), *_beats(COMMENT, 1), Stall()]))
    async with asyncio.timeout(LONG):
        delivered = await collect(backend, call())
    assert ("Hello.", ["stop"]) == (text(delivered), reasons(delivered))


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_BLANK_LINE = b"1\r\n\n\r\n"


async def test_blank_lines_before_a_complete_answer(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """Blank lines before a JSON response, as DeepSeek sends them, reset the timeouts and are ignored."""
    body = vendor.complete_answer("Hello.").steps()[1]
    assert isinstance(body, bytes)
    data = body.partition(b"\r\n\r\n")[2]
    last = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
    upstream.answer(Raw([_HEAD, *_beats(_BLANK_LINE, 10), last]))
    answer = await backend.complete(call(timeouts={"stream_idle": 0.3, "first_token": 0.1, "stall": 0.1}))
    assert "Hello." == answer.choices[0].message.content.string_value


async def test_stream_idle_applies_to_a_complete_answer(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """`stream_idle` applies between the bytes of a non-streaming response."""
    upstream.answer(Raw([_HEAD, _BLANK_LINE, Stall()]))
    async with asyncio.timeout(LONG):
        failed = await failure(backend, call(timeouts={"stream_idle": 0.2}))
    assert UpstreamTimeout is type(failed)


async def test_empty_deltas_of_another_parley() -> None:
    """Empty deltas of another Parley do not reset `stall`."""
    empty = [step for _ in range(100) for step in (Delay(0.05), chunk(Delta()))]
    with ScriptedParley() as upstream:
        backend = other_parley(upstream.address, KEY)
        upstream.answer(Answer([*chunks("Hel"), *empty]))
        delivered, failed = await broken_off(backend, call(timeouts={"stall": 0.3, "stream_idle": LONG}))
        assert ("Hel", StreamBroken) == (text(delivered), type(failed))
        await backend.close()


async def test_another_parley_that_leaves_its_stream_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of another Parley is complete with its last `finish_reason`."""
    monkeypatch.setattr(deadlines, "TAIL_SECONDS", 0.2)
    gate = Gate()
    with ScriptedParley() as upstream:
        backend = other_parley(upstream.address, KEY)
        upstream.answer(Answer([*chunks("Hello."), chunk(finish="stop"), gate]))
        async with asyncio.timeout(LONG):
            delivered = await collect(backend, call())
        assert ("Hello.", ["stop"]) == (text(delivered), reasons(delivered))
        gate.set()
        await backend.close()
