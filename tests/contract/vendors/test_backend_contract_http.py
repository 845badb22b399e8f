"""What every backend must do whose vendor speaks HTTP: bytes, status codes and headers as they come off the socket."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from parley.core.errors import (
    ParleyError,
    StreamBroken,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreadable,
    UpstreamUnrecognized,
)
from parley.core.ports import Backend
from tests.contract.backends import (
    NOT_AVAILABLE,
    Mark,
    broken_off,
    call,
    collect,
    failure,
    text,
)
from tests.contract.http_vendors import HttpVendor
from tests.upstream import PATIENCE, Cut, Gate, Json, Raw, ScriptedUpstream, Stall


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, UpstreamRejected),
        (401, UpstreamMisconfigured),
        (403, UpstreamMisconfigured),
        (404, UpstreamMisconfigured),
        (408, UpstreamUnavailable),
        (402, UpstreamQuotaExhausted),
        (409, UpstreamUnrecognized),
        (424, UpstreamUnrecognized),
        (422, UpstreamRejected),
        (429, UpstreamRateLimited),
        (500, UpstreamUnavailable),
        (502, UpstreamUnavailable),
        (503, UpstreamUnavailable),
        (504, UpstreamUnavailable),
        (524, UpstreamTimeout),
        (529, UpstreamUnavailable),
        (307, UpstreamMisconfigured),
    ],
)
async def test_status(
    vendor: HttpVendor,
    backend: Backend,
    upstream: ScriptedUpstream,
    status: int,
    error: type[ParleyError],
    stream: bool,
) -> None:
    """Each status is its own kind of failure, for whole answers and streams alike."""
    upstream.answer(vendor.answers(status, "because", Location=upstream.url))
    failed = await failure(backend, call(), stream=stream)
    assert error is type(failed)
    assert 1 == len(upstream.requests)
    assert "because" in (failed.cause or "")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"retry_after_ms": "1500", "Retry_After": "2"}, 1.5),
        ({"Retry_After": "-3"}, 0.0),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "soon"}, None),
        ({}, None),
    ],
)
async def test_forms_of_retry_after(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, headers: dict[str, str], expected: float | None
) -> None:
    """How long to wait is read from the headers."""
    upstream.answer(vendor.answers(429, **headers))
    assert expected == (await failure(backend, call())).retry_after


async def test_retry_after_date(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """How long to wait may be an HTTP date."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    upstream.answer(vendor.answers(429, Retry_After=date))
    waits = (await failure(backend, call())).retry_after
    assert waits is not None
    assert 3000 < waits <= 3600


async def test_burst_is_one_chunk(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """Deltas that arrive together leave together."""
    pieces = [f"{number} " for number in range(100)]
    upstream.answer(vendor.stream(*pieces, Mark.END, together=True))
    chunks = await collect(backend, call())
    assert "".join(pieces) == text(chunks)
    assert len(chunks) <= 3


async def test_connection_closed_while_idle(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A kept connection that the upstream has closed is replaced, and the caller does not notice."""
    body = Json(vendor.answer("Hello."), headers={"Connection": "close"})
    upstream.answer(body, body)
    await backend.complete(call())
    await backend.complete(call())
    assert 2 == upstream.connections


@pytest.mark.parametrize("stream", [False, True])
async def test_reset_before_the_head(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, stream: bool
) -> None:
    """A connection that is reset before the answer begins is an unavailable upstream."""
    upstream.answer(Raw([Cut(reset=True)]))
    assert UpstreamUnavailable is type(await failure(backend, call(), stream=stream))


@pytest.mark.parametrize("reset", [False, True])
async def test_cut_whole_answer(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, reset: bool) -> None:
    """A whole answer whose body breaks off cannot be read: it was made, and is not asked for again."""
    upstream.answer(Raw(["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", Cut(reset=reset)]))
    assert UpstreamUnreadable is type(await failure(backend, call()))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"choices": 3}',
        '{"choices": [{"message": 1}]}',
        '{"content": 3}',
        '{"content": [3], "stop_reason": "end_turn"}',
        "<html>",
    ],
)
async def test_misshapen_answer(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, body: str) -> None:
    """An answer of another shape cannot be read; the cause is for the log."""
    upstream.answer(Raw([f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"]))
    failed = await failure(backend, call())
    assert (UpstreamUnreadable, NOT_AVAILABLE) == (type(failed), failed.message)
    assert failed.cause


async def test_bounded_answer(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """An answer longer than 64 MiB is not read into memory."""
    piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    upstream.answer(Raw(["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[piece] * 65, Stall()]))
    failed = await failure(backend, call())
    assert "longer than" in (failed.cause or "")


async def test_cut_right_behind_the_text(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """What came before the cut is delivered, though the connection's end is there before anyone has read it."""
    late = Gate()
    upstream.answer(vendor.stream("Hel", late, "lo", Cut(), together=True))
    stream = backend.stream(call())
    said = [await anext(stream)]
    late.set()
    await asyncio.sleep(0.1)  # both have come before the next read; where they have not, less is proved

    async def go_on() -> None:
        async for chunk in stream:
            said.append(chunk)  # noqa: PERF401 (a comprehension would lose what came before the failure)

    with pytest.raises(StreamBroken):
        await go_on()
    assert "Hello" == text(said)


async def test_silence_is_noticed_in_time(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A stream may be silent for `stream_idle`, and not for what is left of a longer `first_token`."""
    upstream.answer(vendor.stream("Hel", Stall()))
    async with asyncio.timeout(PATIENCE):
        failed = await failure(backend, call(timeouts={"first_token": 60.0, "stream_idle": 0.05}), stream=True)
    assert StreamBroken is type(failed)


async def test_a_caller_who_takes_long_is_not_the_upstream(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """Only the time that the upstream is silent counts, not that which the caller takes over a chunk."""
    first, second = Gate(), Gate()
    upstream.answer(vendor.stream("Hel", first, "lo", second, ".", Mark.END))
    chunks = []
    async for chunk in backend.stream(call(timeouts={"stream_idle": 0.2})):
        chunks.append(chunk)
        first.set()
        if "Hello" == text(chunks):
            await asyncio.sleep(0.5)
            second.set()
    assert "Hello." == text(chunks)


async def test_unparsable_stream(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A stream with something else than JSON in it is broken, after what came before was delivered."""
    upstream.answer(vendor.stream("Hel", b"data: {oops\n\n", Mark.END, together=True))
    said, failed = await broken_off(backend, call())
    assert isinstance(failed, StreamBroken)
    assert "Hel" == text(said)


async def test_error_beside_the_text(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """An error that comes in one piece with text breaks the stream after that text; what follows it is not read."""
    upstream.answer(vendor.stream("Hel", Mark.FAULT, "lo", Mark.END, together=True))
    said, failed = await broken_off(backend, call())
    assert ("Hel", StreamBroken) == (text(said), type(failed))


async def test_endless_line(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A line of more than 1 MiB breaks the stream instead of filling the memory."""
    upstream.answer(vendor.stream("Hel", b"data: ", *[b"x" * 65536] * 20, Stall()))
    failed = await failure(backend, call(), stream=True)
    assert StreamBroken is type(failed)
    assert "longer than" in (failed.cause or "")


async def test_failed_stream_closes_the_socket(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """A stream that ends in an error does not keep its connection."""
    upstream.answer(vendor.stream("Hel", b"data: {oops\n\n", Stall()))
    await failure(backend, call(), stream=True)
    assert await upstream.requests[0].closed.arrives(1)
