"""What every backend must do, whatever its vendor."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import pytest_asyncio

from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    DeadlineExceeded,
    ParleyError,
    StreamBroken,
    UpstreamMisconfigured,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from parley.core.ports import Backend, UpstreamCall
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from tests.contract.backends import KEY, VENDORS, Vendor, call, collect, reasons, text
from tests.upstream import Cut, Events, Gate, Json, Raw, ScriptedUpstream, Stall

NOT_AVAILABLE = 'The model "myapp-123" is not available; try again later'


@pytest.fixture(params=VENDORS, ids=repr)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    """Each vendor in turn."""
    found: Vendor = request.param
    return found


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """A real HTTP server that follows a script."""
    with ScriptedUpstream() as server:
        yield server


@pytest_asyncio.fixture
async def backend(vendor: Vendor, upstream: ScriptedUpstream) -> AsyncIterator[Backend]:
    """The vendor's backend, on the scripted upstream."""
    made = vendor.backend(upstream.url)
    yield made
    await made.close()


async def failure(backend: Backend, asked: UpstreamCall, *, stream: bool = False) -> ParleyError:
    """Returns the error that a call ends with."""
    with pytest.raises(ParleyError) as caught:
        await (collect(backend, asked) if stream else backend.complete(asked))
    return caught.value


async def broken_off(
    backend: Backend, asked: UpstreamCall, gate: Gate | None = None
) -> tuple[list[ChatCompletionChunk], ParleyError | None]:
    """Returns a stream's chunks and the error that it ends with; opens the gate at the first chunk."""
    chunks = []
    try:
        async for chunk in backend.stream(asked):
            chunks.append(chunk)
            if gate is not None:
                gate.set()
    except ParleyError as error:
        return chunks, error
    return chunks, None


async def test_whole_answer(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A whole answer has the text, the reason it ended and what it cost."""
    upstream.answer(vendor.whole("Hello."))
    answer = await backend.complete(call())
    assert "Hello." == answer.choices[0].message.content.string_value
    assert ("assistant", "stop") == (answer.choices[0].message.role, answer.choices[0].finish_reason)
    assert answer.choices[0].HasField("index")
    assert (9, 3, 12) == (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens)


async def test_target_model_is_asked(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """The upstream is asked for the target's model, not for the caller's name of it."""
    upstream.answer(vendor.whole("Hello."))
    await backend.complete(call())
    assert "target-1" == upstream.requests[0].json["model"]


async def test_stream(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A stream's chunks add up to the text; the last one has the usage."""
    upstream.answer(vendor.stream("Hel", "lo."))
    chunks = await collect(backend, call())
    assert "Hello." == text(chunks)
    assert ["stop"] == reasons(chunks)
    assert 12 == chunks[-1].usage.total_tokens


async def test_stream_is_not_held_back(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A piece is delivered while the upstream still waits to send the next."""
    gate = Gate()
    upstream.answer(Events([*vendor.begins("Hel"), gate, *vendor.begins("lo."), *vendor.ends()]))
    chunks = []
    async for chunk in backend.stream(call()):
        chunks.append(chunk)
        if "Hel" == text(chunks):
            gate.set()
    assert "Hello." == text(chunks)


async def test_burst_is_one_chunk(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """Deltas that arrive together leave together."""
    pieces = [f"{number} " for number in range(100)]
    upstream.answer(Events([*vendor.begins(*pieces), *vendor.ends()], together=True))
    chunks = await collect(backend, call())
    assert "".join(pieces) == text(chunks)
    assert len(chunks) <= 3


async def test_connections_are_kept(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """Calls one after another, whole and streamed, share one connection."""
    for _ in range(3):
        upstream.answer(vendor.whole("Hello."), vendor.stream("Hello."))
        await backend.complete(call())
        await collect(backend, call())
    assert 1 == upstream.connections


async def test_connection_closed_while_idle(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A kept connection that the upstream has closed is replaced, and the caller does not notice."""
    body = Json(vendor.whole("Hello."), headers={"Connection": "close"})
    upstream.answer(body, body)
    await backend.complete(call())
    await backend.complete(call())
    assert 2 == upstream.connections


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, UpstreamRejected),
        (401, UpstreamMisconfigured),
        (403, UpstreamMisconfigured),
        (404, UpstreamMisconfigured),
        (408, UpstreamUnavailable),
        (409, UpstreamRejected),
        (422, UpstreamRejected),
        (429, UpstreamRateLimited),
        (500, UpstreamUnavailable),
        (502, UpstreamUnavailable),
        (503, UpstreamUnavailable),
        (529, UpstreamUnavailable),
        (307, UpstreamMisconfigured),
    ],
)
async def test_status(
    vendor: Vendor, backend: Backend, upstream: ScriptedUpstream, status: int, error: type[ParleyError], stream: bool
) -> None:
    """Each status is its own kind of failure, for whole answers and streams alike."""
    upstream.answer(vendor.refuses(status, "because", Location=upstream.url))
    failed = await failure(backend, call(), stream=stream)
    assert error is type(failed)
    assert 1 == len(upstream.requests)
    assert "because" in (failed.cause or "")


async def test_words_of_a_rejection(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """Where the request itself is refused, the caller reads the upstream's own words."""
    upstream.answer(vendor.refuses(400, "This model does not support tools"))
    assert "This model does not support tools" == (await failure(backend, call())).message


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
async def test_words_that_stay_inside(
    vendor: Vendor, backend: Backend, upstream: ScriptedUpstream, status: int
) -> None:
    """What an upstream says about itself or our key is for the log; the caller reads that the model is not there."""
    upstream.answer(vendor.refuses(status, "go to the billing page"))
    failed = await failure(backend, call())
    assert NOT_AVAILABLE == failed.message
    assert "go to the billing page" in (failed.cause or "")


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_key_never_appears(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream, status: int) -> None:
    """Our key is in no error, even where the upstream repeats it; nor is anything that looks like a key."""
    upstream.answer(vendor.refuses(status, f"Incorrect API key provided: {KEY}, not sk-proj-0815 or Bearer 4711."))
    failed = await failure(backend, call())
    shown = f"{failed!r} {failed} {failed.message} {failed.cause} {vars(failed)}"
    assert not [secret for secret in (KEY, "0815", "4711") if secret in shown]
    assert KEY not in f"{backend!r}"


async def test_context_length(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A conversation that is too long is told apart from other rejections."""
    upstream.answer(Json(vendor.context_fault, 400))
    assert ContextLengthExceeded is type(await failure(backend, call()))


async def test_content_policy(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A refusal of the content has the provider's reason as its message."""
    upstream.answer(Json(vendor.policy_fault, 400))
    failed = await failure(backend, call())
    assert (ContentPolicy, "rejected by the safety system") == (type(failed), failed.message)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "0.5"}, 0.5),
        ({"retry_after_ms": "1500", "Retry_After": "2"}, 1.5),
        ({"Retry_After": "-3"}, 0.0),
        ({"Retry_After": "nan"}, None),
        ({"Retry_After": "soon"}, None),
        ({}, None),
    ],
)
async def test_retry_after(
    vendor: Vendor, backend: Backend, upstream: ScriptedUpstream, headers: dict[str, str], expected: float | None
) -> None:
    """How long to wait is read from the headers."""
    upstream.answer(vendor.refuses(429, **headers))
    failed = await failure(backend, call())
    assert expected == failed.retry_after
    assert 'The model "myapp-123" is receiving too many requests; try again later' == failed.message


async def test_retry_after_date(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """How long to wait may be an HTTP date."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    upstream.answer(vendor.refuses(429, Retry_After=date))
    waits = (await failure(backend, call())).retry_after
    assert waits is not None
    assert 3000 < waits <= 3600


@pytest.mark.parametrize("stream", [False, True])
async def test_refused_connection(vendor: Vendor, stream: bool) -> None:
    """Nobody listening is an unavailable upstream."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        backend = vendor.backend(f"http://127.0.0.1:{unused.getsockname()[1]}/v1")
        failed = await failure(backend, call(), stream=stream)
        await backend.close()
    assert (UpstreamUnavailable, NOT_AVAILABLE) == (type(failed), failed.message)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reset", [False, True])
async def test_cut_before_the_head(
    vendor: Vendor, backend: Backend, upstream: ScriptedUpstream, stream: bool, reset: bool
) -> None:
    """A connection that ends before the answer begins is an unavailable upstream."""
    upstream.answer(Raw([Cut(reset=reset)]))
    assert UpstreamUnavailable is type(await failure(backend, call(), stream=stream))


@pytest.mark.parametrize("reset", [False, True])
async def test_cut_whole_answer(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream, reset: bool) -> None:
    """A whole answer whose body breaks off is an unavailable upstream."""
    upstream.answer(Raw(["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", Cut(reset=reset)]))
    assert UpstreamUnavailable is type(await failure(backend, call()))


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "null", "{}", '{"choices": 3}', '{"choices": [{"message": 1}]}', "<html>"]
)
async def test_misshapen_answer(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream, body: str) -> None:
    """An answer that cannot be read is an unavailable upstream, with the cause for the log."""
    upstream.answer(Raw([f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"]))
    failed = await failure(backend, call())
    assert (UpstreamUnavailable, NOT_AVAILABLE) == (type(failed), failed.message)
    assert failed.cause


async def test_bounded_answer(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """An answer longer than 64 MiB is not read into memory."""
    piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    upstream.answer(Raw(["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[piece] * 65, Stall()]))
    failed = await failure(backend, call())
    assert "longer than" in (failed.cause or "")


async def test_no_answer_in_time(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A whole answer that takes longer than `total` is a timeout."""
    upstream.answer(Raw([Stall()]))
    failed = await failure(backend, call(timeouts={"total": 0.05}))
    assert (UpstreamTimeout, 'The model "myapp-123" did not answer in time') == (type(failed), failed.message)


@pytest.mark.parametrize("head", [False, True])
async def test_no_first_token_in_time(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream, head: bool) -> None:
    """A stream without its first token within `first_token` is a timeout, whether its head has come or not."""
    upstream.answer(Events([*vendor.begins(), Stall()]) if head else Raw([Stall()]))
    failed = await failure(backend, call(timeouts={"first_token": 0.05}), stream=True)
    assert UpstreamTimeout is type(failed)


async def test_silent_stream(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A stream that falls silent for longer than `stream_idle` is broken, after what it said was delivered."""
    upstream.answer(Events([*vendor.begins("Hel"), Stall()]))
    said, failed = await broken_off(backend, call(timeouts={"stream_idle": 0.05}))
    assert isinstance(failed, StreamBroken)
    assert "Hel" == text(said)
    assert 'The model "myapp-123" broke off before its answer was whole; try again' == failed.message


@pytest.mark.parametrize("stream", [False, True])
async def test_callers_deadline(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream, stream: bool) -> None:
    """The caller's own deadline is told apart from the upstream's slowness."""
    upstream.answer(Raw([Stall()]))
    assert DeadlineExceeded is type(await failure(backend, call(deadline=0.05), stream=stream))


async def test_callers_deadline_in_mid_stream(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """The caller's deadline ends a stream that is well, too."""
    upstream.answer(Events([*vendor.begins("Hel"), Stall()]))
    assert DeadlineExceeded is type(await failure(backend, call(deadline=0.3), stream=True))


@pytest.mark.parametrize("reset", [False, True])
async def test_cut_stream(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream, reset: bool) -> None:
    """A stream that is cut is broken, after what it said was delivered."""
    gate = Gate()
    upstream.answer(Events([*vendor.begins("Hel"), gate, Cut(reset=reset)]))
    said, failed = await broken_off(backend, call(), gate)
    assert isinstance(failed, StreamBroken)
    assert "Hel" == text(said)


async def test_cut_right_behind_the_text(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """What came before the cut is delivered, though the connection's end is there before anyone has read it."""
    late = Gate()
    upstream.answer(Events([*vendor.begins("Hel"), late, *vendor.begins("lo"), Cut()], together=True))
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


async def test_stream_without_an_end(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A stream that ends in good order, but says nowhere that its answer is whole, is broken."""
    upstream.answer(Events(vendor.begins("Hel", "lo.")))
    assert StreamBroken is type(await failure(backend, call(), stream=True))


async def test_unparsable_stream(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A stream with something else than JSON in it is broken, after what came before was delivered."""
    upstream.answer(Events([*vendor.begins("Hel"), "data: {oops\n\n", *vendor.ends()], together=True))
    said, failed = await broken_off(backend, call())
    assert isinstance(failed, StreamBroken)
    assert "Hel" == text(said)


async def test_error_in_mid_stream(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """An error event after the first token breaks the stream; its words are for the log."""
    upstream.answer(Events([*vendor.begins("Hel"), vendor.fault_event, *vendor.ends()], together=True))
    said, failed = await broken_off(backend, call())
    assert isinstance(failed, StreamBroken)
    assert "Hel" == text(said)
    assert "GPU" not in failed.message
    assert "the GPU is gone" in (failed.cause or "")


async def test_error_before_the_first_token(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """An error event in place of an answer is what the same error would be as a status."""
    upstream.answer(Events([vendor.fault_event]), Events([vendor.context_fault]))
    assert UpstreamUnavailable is type(await failure(backend, call(), stream=True))
    assert ContextLengthExceeded is type(await failure(backend, call(), stream=True))


async def test_endless_line(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A line of more than 1 MiB breaks the stream instead of filling the memory."""
    upstream.answer(Events([*vendor.begins("Hel"), "data: ", *["x" * 65536] * 20, Stall()]))
    failed = await failure(backend, call(), stream=True)
    assert StreamBroken is type(failed)
    assert "longer than" in (failed.cause or "")


@pytest.mark.parametrize("stream", [False, True])
async def test_cancellation_closes_the_socket(
    vendor: Vendor, backend: Backend, upstream: ScriptedUpstream, stream: bool
) -> None:
    """Cancelling the task closes the connection to the upstream within a second."""
    upstream.answer(Events([*vendor.begins("Hel"), Stall()]) if stream else Raw([Stall()]))
    task = asyncio.ensure_future(failure(backend, call(), stream=stream))
    received = await upstream.arrives()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await received.closed.arrives(1)


async def test_closing_the_iterator_closes_the_socket(
    vendor: Vendor, backend: Backend, upstream: ScriptedUpstream
) -> None:
    """Closing the iterator in mid-stream closes the connection to the upstream within a second."""
    upstream.answer(Events([*vendor.begins("Hel"), Stall()]))
    chunks = backend.stream(call())
    await anext(chunks)
    await chunks.aclose()
    assert await upstream.requests[0].closed.arrives(1)


async def test_failed_stream_closes_the_socket(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """A stream that ends in an error does not keep its connection."""
    upstream.answer(Events([*vendor.begins("Hel"), "data: {oops\n\n", Stall()]))
    await failure(backend, call(), stream=True)
    assert await upstream.requests[0].closed.arrives(1)


async def test_close(vendor: Vendor, backend: Backend, upstream: ScriptedUpstream) -> None:
    """Closing the backend closes its idle connections; closing it again does nothing."""
    upstream.answer(vendor.whole("Hello."))
    await backend.complete(call())
    await backend.close()
    await backend.close()
    assert await upstream.requests[0].closed.arrives(1)
