"""Behavior of every HTTP backend: body bytes, status codes and headers."""

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
from tests.contract.backends import NOT_AVAILABLE, Mark, broken_off, call, collect, failure, stream_of, text, words
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
    """Each status maps to its error, streaming or not."""
    upstream.answer(vendor.answers(status, "because", Location=upstream.url))
    failed = await failure(backend, call(), stream=stream)
    assert error is type(failed)
    assert 1 == len(upstream.requests)
    assert "because" in words(failed)


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
    """The retry delay is parsed from the headers."""
    upstream.answer(vendor.answers(429, **headers))
    assert expected == (await failure(backend, call())).retry_after


async def test_retry_after_date(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """The retry delay may be an HTTP date."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    upstream.answer(vendor.answers(429, Retry_After=date))
    waits = (await failure(backend, call())).retry_after
    assert waits is not None
    assert 3000 < waits <= 3600


async def test_burst_is_one_chunk(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """Deltas that arrive together become few chunks."""
    pieces = [f"{number} " for number in range(100)]
    upstream.answer(vendor.stream(*pieces, Mark.END, together=True))
    chunks = await collect(backend, call())
    assert "".join(pieces) == text(chunks)
    assert len(chunks) <= 3


async def test_connection_closed_while_idle(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A pooled connection that the upstream has closed is replaced without an error."""
    body = Json(vendor.answer("Hello."), headers={"Connection": "close"})
    upstream.answer(body, body)
    await backend.complete(call())
    await backend.complete(call())
    assert 2 == upstream.connections


@pytest.mark.parametrize("stream", [False, True])
async def test_reset_before_the_head(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, stream: bool
) -> None:
    """A connection that is reset before the response maps to UpstreamUnavailable."""
    upstream.answer(Raw([Cut(reset=True)]))
    assert UpstreamUnavailable is type(await failure(backend, call(), stream=stream))


@pytest.mark.parametrize("reset", [False, True])
async def test_truncated_complete_answer(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, reset: bool
) -> None:
    """A truncated JSON response maps to UpstreamUnreadable, which is not retried."""
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
async def test_malformed_answer(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream, body: str) -> None:
    """A malformed response maps to UpstreamUnreadable, with a cause for the log."""
    upstream.answer(Raw([f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"]))
    failed = await failure(backend, call())
    assert (UpstreamUnreadable, NOT_AVAILABLE) == (type(failed), failed.message)
    assert failed.cause


async def test_size_limit_of_an_answer(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A response over 64 MiB is not read into memory."""
    piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    upstream.answer(Raw(["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[piece] * 65, Stall()]))
    failed = await failure(backend, call())
    assert "longer than" in (failed.cause or "")


async def test_text_before_a_truncation_is_delivered(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """Text that arrives together with the end of the connection is still delivered."""
    late = Gate()
    upstream.answer(vendor.stream("Hel", late, "lo", Cut(), together=True))
    stream = stream_of(backend, call())
    delivered = [await anext(stream)]
    late.set()
    await asyncio.sleep(0.1)  # text and end of connection arrive before the next read

    async def read_rest() -> None:
        async for chunk in stream:
            delivered.append(chunk)  # noqa: PERF401 (a comprehension would lose the chunks before the failure)

    with pytest.raises(StreamBroken):
        await read_rest()
    assert "Hello" == text(delivered)


async def test_silence_is_noticed_in_time(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """After the first token, `stream_idle` applies instead of a longer `first_token`."""
    upstream.answer(vendor.stream("Hel", Stall()))
    async with asyncio.timeout(PATIENCE):
        failed = await failure(backend, call(timeouts={"first_token": 60.0, "stream_idle": 0.05}), stream=True)
    assert StreamBroken is type(failed)


async def test_slow_consumer_is_not_upstream_silence(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """The time that the consumer takes for a chunk does not count as upstream silence."""
    first, second = Gate(), Gate()
    upstream.answer(vendor.stream("Hel", first, "lo", second, ".", Mark.END))
    chunks = []
    async for chunk in stream_of(backend, call(timeouts={"stream_idle": 0.2})):
        chunks.append(chunk)
        first.set()
        if "Hello" == text(chunks):
            await asyncio.sleep(0.5)
            second.set()
    assert "Hello." == text(chunks)


async def test_unparsable_stream(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """Invalid JSON in a stream raises StreamBroken after the earlier text was delivered."""
    upstream.answer(vendor.stream("Hel", b"data: {oops\n\n", Mark.END, together=True))
    delivered, failed = await broken_off(backend, call())
    assert isinstance(failed, StreamBroken)
    assert "Hel" == text(delivered)


async def test_error_event_behind_text(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """An error event that arrives with text ends the stream after that text."""
    upstream.answer(vendor.stream("Hel", Mark.FAULT, "lo", Mark.END, together=True))
    delivered, failed = await broken_off(backend, call())
    assert ("Hel", StreamBroken) == (text(delivered), type(failed))


async def test_endless_line(vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A line over 1 MiB raises StreamBroken."""
    upstream.answer(vendor.stream("Hel", b"data: ", *[b"x" * 65536] * 20, Stall()))
    failed = await failure(backend, call(), stream=True)
    assert StreamBroken is type(failed)
    assert "longer than" in (failed.cause or "")


async def test_failed_stream_closes_the_socket(
    vendor: HttpVendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """A failed stream closes its connection."""
    upstream.answer(vendor.stream("Hel", b"data: {oops\n\n", Stall()))
    await failure(backend, call(), stream=True)
    assert await upstream.requests[0].closed.arrives(1)
