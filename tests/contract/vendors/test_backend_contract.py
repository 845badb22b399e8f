"""Behavior that every backend must have, regardless of vendor and protocol."""

import asyncio
import socket

import pytest

from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    DeadlineExceeded,
    StreamBroken,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from parley.core.ports import Backend
from tests.contract.any_llm_vendor import ANY_LLM
from tests.contract.backends import (
    KEY,
    NOT_AVAILABLE,
    Mark,
    Upstream,
    Vendor,
    broken_off,
    call,
    collect,
    failure,
    reasons,
    stream_of,
    text,
    words,
)
from tests.contract.http_vendors import HTTP_VENDORS
from tests.contract.parley_vendor import PARLEY
from tests.upstream import Cut, Gate, Stall

VENDORS: list[Vendor] = [*HTTP_VENDORS, PARLEY, *ANY_LLM]

BROKEN = 'The model "myapp-123" broke off before its answer was whole; try again'


@pytest.fixture(params=VENDORS, ids=lambda vendor: vendor.name)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    """Each vendor in turn."""
    found: Vendor = request.param
    return found


async def test_complete_answer(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """A complete answer has its text, finish reason and usage."""
    upstream.answer(vendor.complete_answer("Hello."))
    answer = await backend.complete(call())
    assert "Hello." == answer.choices[0].message.content.string_value
    assert ("assistant", "stop") == (answer.choices[0].message.role, answer.choices[0].finish_reason)
    assert answer.choices[0].HasField("index")
    assert (9, 3, 12) == (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens)


async def test_target_model_is_requested(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """The upstream receives the target's model name, not the caller's."""
    upstream.answer(vendor.complete_answer("Hello."))
    await backend.complete(call())
    assert "target-1" == vendor.requested_model(upstream.requests[0])


async def test_stream(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """The chunks of a stream add up to the text; the last usage is the total."""
    upstream.answer(vendor.stream("Hel", "lo.", Mark.END))
    chunks = await collect(backend, call())
    assert "Hello." == text(chunks)
    assert ["stop"] == reasons(chunks)
    usage = [chunk.usage for chunk in chunks if chunk.HasField("usage")][-1]
    assert (9, 3, 12) == (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)


async def test_stream_is_not_buffered(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """A delta is delivered before the upstream sends the next one."""
    gate = Gate()
    upstream.answer(vendor.stream("Hel", gate, "lo.", Mark.END))
    chunks = []
    async for chunk in stream_of(backend, call()):
        chunks.append(chunk)
        if "Hel" == text(chunks):
            gate.set()
    assert "Hello." == text(chunks)


async def test_connections_are_reused(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """Sequential calls, streaming or not, share one connection."""
    for _ in range(3):
        upstream.answer(vendor.complete_answer("Hello."), vendor.stream("Hello.", Mark.END))
        await backend.complete(call())
        await collect(backend, call())
    assert 1 == upstream.connections


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        UpstreamRejected,
        ContextLengthExceeded,
        ContentPolicy,
        UpstreamMisconfigured,
        UpstreamRateLimited,
        UpstreamUnavailable,
    ],
)
async def test_rejection_kinds(
    vendor: Vendor, backend: Backend, upstream: Upstream, kind: type[UpstreamError], stream: bool
) -> None:
    """Each kind of rejection maps to its own error, streaming or not, without a retry."""
    upstream.answer(vendor.rejection(kind, "because"))
    failed = await failure(backend, call(), stream=stream)
    assert kind is type(failed)
    assert 1 == len(upstream.requests)
    assert "because" in words(failed)


@pytest.mark.parametrize("kind", [UpstreamRejected, ContextLengthExceeded, ContentPolicy])
async def test_message_of_a_rejection(
    vendor: Vendor, backend: Backend, upstream: Upstream, kind: type[UpstreamError]
) -> None:
    """The caller of an invalid request receives the upstream's message."""
    upstream.answer(vendor.rejection(kind, "this model does not like it"))
    assert "this model does not like it" in (await failure(backend, call())).message


@pytest.mark.parametrize("kind", [UpstreamMisconfigured, UpstreamUnavailable])
async def test_internal_messages_are_not_exposed(
    vendor: Vendor, backend: Backend, upstream: Upstream, kind: type[UpstreamError]
) -> None:
    """Messages about the upstream or its key are neither logged nor shown; the caller receives a generic message."""
    upstream.answer(vendor.rejection(kind, "go to the billing page"))
    failed = await failure(backend, call())
    assert NOT_AVAILABLE == failed.message
    assert "go to the billing page" in words(failed)
    assert "billing page" not in (failed.cause or "")


@pytest.mark.parametrize("kind", [UpstreamRejected, UpstreamMisconfigured, UpstreamRateLimited, UpstreamUnavailable])
async def test_key_never_appears(
    vendor: Vendor, backend: Backend, upstream: Upstream, kind: type[UpstreamError]
) -> None:
    """No error contains the API key or anything that looks like a key.

    llama.cpp's server has no key of ours, so only the key-like texts are checked there.
    """
    upstream.answer(vendor.rejection(kind, f"Incorrect API key provided: {KEY}, not sk-proj-0815 or Bearer 4711."))
    failed = await failure(backend, call())
    shown = f"{failed!r} {failed} {failed.message} {failed.cause} {vars(failed)}"
    ours = () if vendor.name == "llama_cpp" else (KEY,)
    assert not [secret for secret in (*ours, "0815", "4711") if secret in shown]
    assert KEY not in f"{backend!r}"


@pytest.mark.parametrize("seconds", [7.0, 0.5, None])
async def test_retry_after(vendor: Vendor, backend: Backend, upstream: Upstream, seconds: float | None) -> None:
    """The upstream's retry delay is part of the error."""
    upstream.answer(vendor.rejection(UpstreamRateLimited, "slow down", retry_after=seconds))
    failed = await failure(backend, call())
    assert seconds == failed.retry_after
    assert 'The model "myapp-123" is receiving too many requests; try again later' == failed.message


@pytest.mark.parametrize("stream", [False, True])
async def test_refused_connection(vendor: Vendor, stream: bool) -> None:
    """A refused connection maps to UpstreamUnavailable."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        backend = vendor.backend(f"127.0.0.1:{unused.getsockname()[1]}")
        failed = await failure(backend, call(), stream=stream)
        await backend.close()
    assert (UpstreamUnavailable, NOT_AVAILABLE) == (type(failed), failed.message)


@pytest.mark.parametrize("stream", [False, True])
async def test_connection_closed_before_the_response(
    vendor: Vendor, backend: Backend, upstream: Upstream, stream: bool
) -> None:
    """A connection that closes before the response maps to UpstreamUnavailable."""
    upstream.answer(vendor.connection_closed())
    assert UpstreamUnavailable is type(await failure(backend, call(), stream=stream))


async def test_total_timeout(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """A complete answer that exceeds `total` maps to UpstreamTimeout."""
    upstream.answer(vendor.silence())
    failed = await failure(backend, call(timeouts={"total": 0.05}))
    assert (UpstreamTimeout, 'The model "myapp-123" did not answer in time') == (type(failed), failed.message)


@pytest.mark.parametrize("head", [False, True])
async def test_first_token_timeout(vendor: Vendor, backend: Backend, upstream: Upstream, head: bool) -> None:
    """A stream without a token within `first_token` maps to UpstreamTimeout."""
    upstream.answer(vendor.stream(Stall()) if head else vendor.silence())
    failed = await failure(backend, call(timeouts={"first_token": 0.05}), stream=True)
    assert UpstreamTimeout is type(failed)


async def test_silent_stream(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """A stream that exceeds `stream_idle` raises StreamBroken after its text was delivered."""
    upstream.answer(vendor.stream("Hel", Stall()))
    delivered, failed = await broken_off(backend, call(timeouts={"stream_idle": 0.05}))
    assert isinstance(failed, StreamBroken)
    assert "Hel" == text(delivered)
    assert BROKEN == failed.message


@pytest.mark.parametrize("stream", [False, True])
async def test_callers_deadline(vendor: Vendor, backend: Backend, upstream: Upstream, stream: bool) -> None:
    """The caller's deadline maps to DeadlineExceeded rather than to an upstream timeout."""
    upstream.answer(vendor.silence())
    assert DeadlineExceeded is type(await failure(backend, call(deadline=0.05), stream=stream))


async def test_callers_deadline_in_mid_stream(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """The caller's deadline also ends a stream after its first token."""
    upstream.answer(vendor.stream("Hel", Stall()))
    assert DeadlineExceeded is type(await failure(backend, call(deadline=0.3), stream=True))


@pytest.mark.parametrize("reset", [False, True])
async def test_truncated_stream(vendor: Vendor, backend: Backend, upstream: Upstream, reset: bool) -> None:
    """A truncated stream raises StreamBroken after its text was delivered."""
    gate = Gate()
    upstream.answer(vendor.stream("Hel", gate, Cut(reset=reset)))
    delivered, failed = await broken_off(backend, call(), gate)
    assert isinstance(failed, StreamBroken)
    assert "Hel" == text(delivered)


async def test_stream_without_an_end_marker(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """A stream that ends without a finish reason or an end marker raises StreamBroken."""
    upstream.answer(vendor.stream("Hel", "lo."))
    delivered, failed = await broken_off(backend, call())
    assert ("Hello.", StreamBroken) == (text(delivered), type(failed))


async def test_error_in_mid_stream(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """An error after the first token raises StreamBroken; its message is logged only."""
    upstream.answer(vendor.stream("Hel", Mark.FAULT))
    delivered, failed = await broken_off(backend, call())
    assert isinstance(failed, StreamBroken)
    assert "Hel" == text(delivered)
    assert BROKEN == failed.message
    assert "the GPU is gone" in words(failed)


async def test_error_before_the_first_token(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """An error event before the first token maps to the same error as an error response."""
    upstream.answer(vendor.stream(Mark.FAULT), vendor.stream(Mark.TOO_LONG))
    assert UpstreamUnavailable is type(await failure(backend, call(), stream=True))
    assert ContextLengthExceeded is type(await failure(backend, call(), stream=True))


@pytest.mark.parametrize("stream", [False, True])
async def test_cancellation_reaches_the_upstream(
    vendor: Vendor, backend: Backend, upstream: Upstream, stream: bool
) -> None:
    """Cancelling the task ends the call at the upstream within a second."""
    upstream.answer(vendor.stream("Hel", Stall()) if stream else vendor.silence())
    task = asyncio.ensure_future(failure(backend, call(), stream=stream))
    received = await upstream.arrives()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await received.closed.arrives(1)


async def test_closing_the_iterator_reaches_the_upstream(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """Closing the iterator in mid-stream ends the call at the upstream within a second."""
    upstream.answer(vendor.stream("Hel", Stall()))
    chunks = stream_of(backend, call())
    await anext(chunks)
    await chunks.aclose()
    assert await upstream.requests[0].closed.arrives(1)


@pytest.mark.parametrize(("stream_idle", "deadline"), [(0.05, None), (15.0, 0.3)])
async def test_timed_out_stream_is_cancelled_at_the_upstream(
    vendor: Vendor, backend: Backend, upstream: Upstream, stream_idle: float, deadline: float | None
) -> None:
    """A stream that times out is cancelled at the upstream."""
    upstream.answer(vendor.stream("Hel", Stall()))
    await failure(backend, call(deadline=deadline, timeouts={"stream_idle": stream_idle}), stream=True)
    assert await upstream.requests[0].closed.arrives(1)


async def test_close(vendor: Vendor, backend: Backend, upstream: Upstream) -> None:
    """Closing the backend closes its idle connections; closing it again has no effect."""
    upstream.answer(vendor.complete_answer("Hello."))
    await backend.complete(call())
    await backend.close()
    await backend.close()
    assert await upstream.requests[0].closed.arrives(1)
