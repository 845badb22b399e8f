"""Behavior of the backend for another Parley, beyond the contract suite."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict, ParseDict

from parley.backends.parley.backend import Parley
from parley.config import ConfigError
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    DeadlineExceeded,
    ParleyError,
    StreamBroken,
    UnsupportedParameter,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreadable,
    UpstreamUnrecognized,
)
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.error_reason_pb2 import ErrorReason
from parley.v1.message_pb2 import Delta
from tests.contract.backends import KEY, call, collect, failure, text
from tests.contract.certificates import CERTIFICATE
from tests.contract.parley_vendor import (
    USAGE,
    Answer,
    Refusal,
    ScriptedParley,
    chunk,
    chunks,
    completion,
    ending,
)
from tests.upstream import Cut, Gate, Stall

HELLO = Answer([completion("Hello.")])


@pytest.fixture
def upstream() -> Iterator[ScriptedParley]:
    """A scripted gRPC server."""
    with ScriptedParley() as server:
        yield server


@pytest_asyncio.fixture
async def backend(upstream: ScriptedParley) -> AsyncIterator[Parley]:
    """The backend, connected to the scripted server."""
    made = Parley(upstream.address, KEY)
    yield made
    await made.close()


async def test_request(backend: Parley, upstream: ScriptedParley) -> None:
    """The request is forwarded with the backend's key and without the fields that store a turn."""
    upstream.answer(HELLO)
    function = {"name": "f", "parameters_json": '{"z": 1, "a": 2}'}
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "seed": 7,
        "stop": ["x"],
        "tools": [{"type": "function", "function": function}],
    }
    own: dict[str, Any] = {
        "chatSessionId": "s",
        "store": True,
        "metadata": {"k": "v"},
        "stream": True,
        "stream_options": {"include_usage": True},
        "continue_final_message": True,
    }
    made = call(**fields, **own)
    await backend.complete(made)
    expected = {"model": "target-1", "messages": [{"role": "user", "content": "hi"}], "store": False, **fields}
    assert expected == MessageToDict(upstream.requests[0].message) | {"seed": 7}
    assert f"Bearer {KEY}" == upstream.requests[0].metadata["authorization"]
    assert ("myapp-123", "s") == (made.request.model, made.request.session_id)


@pytest.mark.parametrize("stream", [False, True])
async def test_continuation(backend: Parley, upstream: ScriptedParley, stream: bool) -> None:
    """A continuation sets `continue_final_message`."""
    upstream.answer(Answer([*chunks("lo."), *ending()]) if stream else HELLO)
    upstream_call = call(
        messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hel"}], continues=True
    )
    await (collect(backend, upstream_call) if stream else backend.complete(upstream_call))
    assert upstream.requests[0].message.continue_final_message


async def test_identity_of_the_other_side_is_cleared(backend: Parley, upstream: ScriptedParley) -> None:
    """Id, time, model name and sequence of the other side are cleared, because the core sets them."""
    non_streaming, part = completion("Hello."), chunk(Delta(content="Hel"), sequence=3)
    non_streaming.session_id = part.session_id = "theirs"
    upstream.answer(Answer([non_streaming]), Answer([part, *ending()]))
    answer = await backend.complete(call())
    first = (await collect(backend, call()))[0]
    assert {"choices", "usage"} == {field.name for field, _ in answer.ListFields()}
    assert {"choices"} == {field.name for field, _ in first.ListFields()}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("deadline", "expected"), [(20.0, 20.0), (None, 30.0), (40.0, 30.0)])
async def test_deadline_is_propagated(
    backend: Parley, upstream: ScriptedParley, deadline: float | None, expected: float, stream: bool
) -> None:
    """The call's deadline is sent: the rest of the caller's deadline, at most `total`."""
    upstream.answer(Answer([*chunks("Hello."), *ending()]) if stream else HELLO)
    upstream_call = call(deadline=deadline, timeouts={"total": 30})
    await (collect(backend, upstream_call) if stream else backend.complete(upstream_call))
    seconds = upstream.requests[0].seconds
    assert seconds is not None
    assert expected - 10 < seconds <= expected + 0.5


REASONS: dict[str, type[ParleyError]] = {
    "INVALID_REQUEST": UpstreamRejected,
    "MISSING_API_KEY": UpstreamMisconfigured,
    "INVALID_API_KEY": UpstreamMisconfigured,
    "PLAN_REQUIRED": UpstreamMisconfigured,
    "MODEL_NOT_FOUND": UpstreamMisconfigured,
    "SESSION_NOT_FOUND": UpstreamUnrecognized,
    "SESSION_BUSY": UpstreamUnavailable,
    "UNSUPPORTED_PARAMETER": UnsupportedParameter,
    "CONTEXT_LENGTH_EXCEEDED": ContextLengthExceeded,
    "CONTENT_POLICY": ContentPolicy,
    "UPSTREAM_REJECTED": UpstreamRejected,
    "UPSTREAM_RATE_LIMITED": UpstreamRateLimited,
    "UPSTREAM_UNAVAILABLE": UpstreamUnavailable,
    "UPSTREAM_TIMEOUT": UpstreamTimeout,
    "STREAM_BROKEN": UpstreamUnavailable,
    "DEADLINE_EXCEEDED": UpstreamTimeout,
    "STORE_UNAVAILABLE": UpstreamUnavailable,
    "SHUTTING_DOWN": UpstreamUnavailable,
    "INTERNAL": UpstreamUnavailable,
    "TURN_LOST": UpstreamUnavailable,
    "RATE_LIMITED": UpstreamRateLimited,
    "IDEMPOTENCY_KEY_IN_USE": UpstreamUnavailable,
    "IDEMPOTENCY_KEY_REUSED": UpstreamUnrecognized,
    "UPSTREAM_QUOTA_EXHAUSTED": UpstreamQuotaExhausted,
}


def test_every_reason_has_its_row() -> None:
    """The table above covers every documented reason."""
    names = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - no dict
    assert names - {"UNSPECIFIED"} == set(REASONS)


@pytest.mark.parametrize(("reason", "expected"), REASONS.items())
async def test_reason(backend: Parley, upstream: ScriptedParley, reason: str, expected: type[ParleyError]) -> None:
    """Before the first token, each reason maps to its error, whatever the status."""
    rejected = Answer(chunks(), Refusal(grpc.StatusCode.UNKNOWN, "because", reason))
    upstream.answer(Answer([], rejected.refusal), rejected)
    for stream in (False, True):
        failed = await failure(backend, call(), stream=stream)
        assert expected is type(failed)
        assert f"{reason}: because" in (failed.cause or "")


@pytest.mark.parametrize("reason", sorted(REASONS.keys() - {"DEADLINE_EXCEEDED"}))
async def test_reason_after_the_first_token(backend: Parley, upstream: ScriptedParley, reason: str) -> None:
    """After the first token, every failure raises StreamBroken."""
    upstream.answer(Answer(chunks("Hel"), Refusal(grpc.StatusCode.INVALID_ARGUMENT, "because", reason)))
    failed = await failure(backend, call(), stream=True)
    assert StreamBroken is type(failed)
    assert "because" in (failed.cause or "")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, UpstreamRejected),
        (grpc.StatusCode.OUT_OF_RANGE, UpstreamRejected),
        (grpc.StatusCode.FAILED_PRECONDITION, UpstreamRejected),
        (grpc.StatusCode.UNAUTHENTICATED, UpstreamMisconfigured),
        (grpc.StatusCode.PERMISSION_DENIED, UpstreamMisconfigured),
        (grpc.StatusCode.NOT_FOUND, UpstreamMisconfigured),
        (grpc.StatusCode.UNIMPLEMENTED, UpstreamMisconfigured),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, UpstreamRateLimited),
        (grpc.StatusCode.DEADLINE_EXCEEDED, UpstreamTimeout),
        (grpc.StatusCode.UNAVAILABLE, UpstreamUnavailable),
        (grpc.StatusCode.INTERNAL, UpstreamUnavailable),
        (grpc.StatusCode.UNKNOWN, UpstreamUnavailable),
        (grpc.StatusCode.CANCELLED, UpstreamUnavailable),
        (grpc.StatusCode.ABORTED, UpstreamUnavailable),
        (grpc.StatusCode.DATA_LOSS, UpstreamUnavailable),
    ],
)
async def test_status_without_a_reason(
    backend: Parley, upstream: ScriptedParley, code: grpc.StatusCode, expected: type[ParleyError]
) -> None:
    """Without a known reason, the status decides."""
    upstream.answer(Answer([], Refusal(code, "because")), Answer([], Refusal(code, "because", "FROM_THE_FUTURE")))
    for stream in (False, True):
        failed = await failure(backend, call(), stream=stream)
        assert expected is type(failed)
        assert f"{code.name}: because" in (failed.cause or "")


async def test_reason_of_another_domain(backend: Parley, upstream: ScriptedParley) -> None:
    """A reason of another domain is ignored."""
    code = grpc.StatusCode.UNAVAILABLE
    upstream.answer(Answer([], Refusal(code, "no", "CONTENT_POLICY", domain="googleapis.com")))
    assert UpstreamUnavailable is type(await failure(backend, call()))


async def test_request_that_is_too_large(backend: Parley, upstream: ScriptedParley) -> None:
    """A request over the other side's size limit is a rejection, not a rate limit."""
    upstream_call = call(messages=[{"role": "user", "content": "x" * (5 * 1024 * 1024)}])
    failed = await failure(backend, upstream_call)
    assert UpstreamRejected is type(failed)
    assert not upstream.requests


async def test_details_of_a_rejection(backend: Parley, upstream: ScriptedParley) -> None:
    """The rejected field and the upstream's code are forwarded; messages contain the caller's model name."""
    facts = {"param": "messages[0].role", "upstream_code": "bad_role"}
    message = 'The model "target-1" knows no "king"'
    upstream.answer(Answer([], Refusal(grpc.StatusCode.INVALID_ARGUMENT, message, "UPSTREAM_REJECTED", facts=facts)))
    failed = await failure(backend, call())
    assert isinstance(failed, UpstreamRejected)
    assert ('The model "myapp-123" knows no "king"', "messages[0].role", "bad_role") == (
        failed.message,
        failed.param,
        failed.code,
    )


async def test_unsupported_parameter_is_named(backend: Parley, upstream: ScriptedParley) -> None:
    """An unsupported parameter of the other side maps to UnsupportedParameter, so another target is tried."""
    message = '`audio` is not supported by the model "target-1"'
    refusal = Refusal(grpc.StatusCode.INVALID_ARGUMENT, message, "UNSUPPORTED_PARAMETER", facts={"param": "audio"})
    upstream.answer(Answer([], refusal))
    failed = await failure(backend, call())
    assert ('`audio` is not supported by the model "myapp-123"', "audio") == (failed.message, failed.param)


async def test_rejected_continuation(backend: Parley, upstream: ScriptedParley) -> None:
    """An unsupported continuation is a rejection of the call."""
    facts = {"param": "continue_final_message"}
    refusal = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "no", "UNSUPPORTED_PARAMETER", facts=facts)
    upstream.answer(Answer([], refusal), Answer([], refusal))
    assert UpstreamRejected is type(await failure(backend, call(continues=True)))
    assert UnsupportedParameter is type(await failure(backend, call()))


@pytest.mark.parametrize("facts", [{"param": "a\nb", "upstream_code": KEY}, {"param": "x" * 5000}])
async def test_unsafe_details_are_dropped(backend: Parley, upstream: ScriptedParley, facts: dict[str, str]) -> None:
    """Details that are not safe header values, or contain the key, are dropped."""
    upstream.answer(Answer([], Refusal(grpc.StatusCode.INVALID_ARGUMENT, "no", "UPSTREAM_REJECTED", facts=facts)))
    failed = await failure(backend, call())
    assert isinstance(failed, UpstreamRejected)
    assert (None, None) == (failed.param, failed.code)


async def test_malformed_details(backend: Parley, upstream: ScriptedParley) -> None:
    """Malformed details are ignored; the status decides."""

    class Odd(Refusal):
        def trailing(self) -> tuple[tuple[str, str | bytes], ...]:
            return (("grpc-status-details-bin", b"\xff\xff"), ("retry-after", "4"))

    upstream.answer(Answer([], Odd(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")))
    failed = await failure(backend, call())
    assert (UpstreamRateLimited, 4.0) == (type(failed), failed.retry_after)


@pytest.mark.parametrize("message", [b"\xff\xff\xff", ChatCompletion()], ids=["garbage", "no choices"])
async def test_malformed_answer(backend: Parley, upstream: ScriptedParley, message: Any) -> None:
    """A malformed complete response maps to UpstreamUnreadable, which is not retried."""
    upstream.answer(Answer([message]))
    failed = await failure(backend, call())
    assert UpstreamUnreadable is type(failed)
    assert failed.cause


async def test_size_limit_of_an_answer(backend: Parley, upstream: ScriptedParley) -> None:
    """A response over 64 MiB is not read into memory."""
    upstream.answer(Answer([completion("x" * (65 * 1024 * 1024))]))
    failed = await failure(backend, call())
    assert UpstreamUnreadable is type(failed)
    assert "larger than max" in (failed.cause or "")


async def test_malformed_chunk(backend: Parley, upstream: ScriptedParley) -> None:
    """A malformed chunk raises StreamBroken and cancels the call."""
    upstream.answer(Answer([*chunks("Hel"), b"\xff\xff\xff", Stall()]))
    assert StreamBroken is type(await failure(backend, call(), stream=True))
    assert await upstream.requests[0].closed.arrives(1)


async def test_stream_without_chunks(backend: Parley, upstream: ScriptedParley) -> None:
    """A stream without chunks raises StreamBroken even if its status is OK."""
    upstream.answer(Answer([]))
    assert StreamBroken is type(await failure(backend, call(), stream=True))


async def test_unfinished_choice(backend: Parley, upstream: ScriptedParley) -> None:
    """A stream is complete only if every choice is finished."""
    other = ChatCompletionChunk()
    other.choices.add(index=1, delta=Delta(content="x"))
    upstream.answer(Answer([*chunks("Hel"), other, *ending()]))
    assert StreamBroken is type(await failure(backend, call(n=2), stream=True))


async def test_tool_calls_and_usage(backend: Parley, upstream: ScriptedParley) -> None:
    """Tool calls, logprobs and usage in chunks are forwarded unchanged."""
    piece = chunk(Delta())
    piece.choices[0].delta.tool_calls.add(index=0, id="c", type="function").function.name = "f"
    piece.choices[0].logprobs.content.add(token="x", logprob=-1.0)
    upstream.answer(Answer([*chunks(), piece, chunk(finish="tool_calls"), chunk(usage=USAGE)]))
    got = await collect(backend, call())
    assert piece.choices[0] == got[1].choices[0]
    assert USAGE == got[-1].usage


EXTRA = '{"z":18446744073709551616,"a":[1.10]}'


async def test_unknown_fields_of_a_request(backend: Parley, upstream: ScriptedParley) -> None:
    """Unknown fields of a request are forwarded at every level."""
    function = {"name": "f", "arguments": "{}", "extra_json": EXTRA}
    fields: dict[str, Any] = {
        "messages": [
            {"role": "assistant", "tool_calls": [{"id": "c", "function": function, "extra_json": EXTRA}]},
            {"role": "tool", "tool_call_id": "c", "content": "1", "extra_json": EXTRA},
        ],
        "tools": [{"type": "web_search", "extra_json": EXTRA}],
        "response_format": {"type": "json_object", "extra_json": EXTRA},
        "stream_options": {"include_usage": True, "extra_json": EXTRA},
        "extra_body_json": EXTRA,
    }
    upstream.answer(HELLO, Answer([*chunks("x"), *ending()]))
    await backend.complete(call(**fields))
    await collect(backend, call(**fields))
    non_streaming, is_stream = [
        MessageToDict(got.message, preserving_proto_field_name=True) for got in upstream.requests
    ]
    for sent in (non_streaming, is_stream):
        assert fields["messages"][0]["tool_calls"] == sent["messages"][0]["tool_calls"]
        assert fields["messages"][1:] == sent["messages"][1:]
        assert {name: fields[name] for name in ("tools", "response_format", "extra_body_json")}.items() <= sent.items()
    assert ("stream_options" in non_streaming, {"extra_json": EXTRA}) == (False, is_stream["stream_options"])


async def test_unknown_fields_of_an_answer(backend: Parley, upstream: ScriptedParley) -> None:
    """Unknown fields of a response are returned as text at every level, converted from the Struct if necessary."""
    both: Any = {"extra": {"z": 1}, "extra_json": EXTRA}
    piece: Any = {"index": 0, "function": {"arguments": "{}", **both}, "extra": {"own": 1}}
    deltas: list[Any] = [{"content": "x", **both}, {"tool_calls": [piece]}, {"content": "y"}]
    made = [ParseDict({"choices": [{"index": 0, "delta": delta, **both}]}, ChatCompletionChunk()) for delta in deltas]
    message = {"content": "x", "tool_calls": [{"id": "c", "extra": {"own": 1}}], **both}
    non_streaming = ParseDict({"choices": [{"message": message, **both}], "usage": both, **both}, ChatCompletion())
    upstream.answer(Answer([non_streaming]), Answer([*made, *ending()]))
    answer = await backend.complete(call())
    assert "extra {" not in str(answer)
    assert 4 == str(answer).count("18446744073709551616")
    assert '{"own":1}' == answer.choices[0].message.tool_calls[0].extra_json
    is_stream = await collect(backend, call())
    assert "extra {" not in str(is_stream)
    assert [EXTRA, "", ""] == [one.choices[0].delta.extra_json for one in is_stream[:3]]
    assert [EXTRA] * 3 == [one.choices[0].extra_json for one in is_stream[:3]]
    call_piece = is_stream[1].choices[0].delta.tool_calls[0]
    assert ('{"own":1}', EXTRA) == (call_piece.extra_json, call_piece.function.extra_json)


async def test_slow_consumer_loses_nothing(backend: Parley, upstream: ScriptedParley) -> None:
    """Messages received before a connection broke are delivered to a slow consumer."""
    pieces, gate = [chunk(Delta(content=f"{number} ")) for number in range(50)], Gate()
    upstream.answer(Answer([*chunks(), *pieces, gate, Cut()]), *[HELLO] * 100)
    stream = backend.stream(call())
    delivered = [await anext(stream)]
    await asyncio.wait_for(_sent(upstream, b"49 "), 10)
    for _ in range(100):
        await backend.complete(call())  # uses the same connection, so that each call also receives part of the stream
    gate.set()
    assert await upstream.requests[0].closed.arrives()
    with pytest.raises(StreamBroken):
        await _read_rest(stream, delivered)
    assert "".join(f"{number} " for number in range(50)) == text(delivered)


async def _sent(upstream: ScriptedParley, data: bytes) -> None:
    while data not in upstream.sent:
        await asyncio.sleep(0.01)


async def _read_rest(stream: AsyncGenerator[ChatCompletionChunk, None], delivered: list[ChatCompletionChunk]) -> None:
    async for piece in stream:
        delivered.append(piece)  # noqa: PERF401 - a comprehension would lose what came before the failure


async def test_backpressure(backend: Parley, upstream: ScriptedParley) -> None:
    """A slow consumer receives the full stream, and flow control stops the other side meanwhile."""
    pieces = [chunk(Delta(content="x" * 200_000))] * 150
    upstream.answer(Answer([*chunks(), *pieces, *ending()]))
    stream = backend.stream(call())
    delivered = [await anext(stream)]
    await asyncio.sleep(0.5)  # without flow control the server would send everything in this time
    assert not upstream.requests[0].answered
    delivered += [piece async for piece in stream]
    assert 30_000_000 == len(text(delivered))


async def test_connect_timeout() -> None:
    """A connection that is not established within `connect` times out."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        backend = Parley(f"127.0.0.1:{silent.getsockname()[1]}")
        late = await failure(backend, call(timeouts={"connect": 0.1}))
        is_stream = await failure(backend, call(timeouts={"connect": 0.1}), stream=True)
        both = await asyncio.gather(
            *(
                failure(backend, upstream_call)
                for upstream_call in (call(deadline=0.1), call(timeouts={"connect": 0.2}))
            )
        )
        await backend.close()
    assert [UpstreamTimeout, UpstreamTimeout] == [type(late), type(is_stream)]
    assert [DeadlineExceeded, UpstreamTimeout] == [type(failed) for failed in both]
    assert "`connect`" in (late.cause or "")


async def test_reconnection() -> None:
    """The backend reconnects soon after a server restarts."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    backend = Parley(f"127.0.0.1:{port}")
    assert UpstreamUnavailable is type(await failure(backend, call()))
    with ScriptedParley(port=port) as server:
        server.answer(HELLO)
        async with asyncio.timeout(10):
            while True:
                try:
                    await backend.complete(call())
                    break
                except UpstreamUnavailable:
                    await asyncio.sleep(0.05)
        assert 1 == len(server.requests)
    await backend.close()


async def test_something_else_listens() -> None:
    """A server that does not speak gRPC maps to UpstreamUnavailable."""
    server = await asyncio.start_server(
        lambda _, writer: writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "127.0.0.1", 0
    )
    backend = Parley(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert UpstreamUnavailable is type(await failure(backend, call()))
    await backend.close()
    server.close()


async def test_health(backend: Parley, upstream: ScriptedParley) -> None:
    """The health check queries the status of the ChatCompletions service."""
    await backend.check()
    upstream.set_health(serving=False)
    with pytest.raises(UpstreamUnavailable) as caught:
        await backend.check()
    assert "NOT_SERVING" in (caught.value.cause or "")
    upstream.set_health(serving=True)
    await backend.check()


async def test_health_without_a_server() -> None:
    """The health check fails without a server."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        backend = Parley(f"127.0.0.1:{unused.getsockname()[1]}", KEY)
        with pytest.raises(UpstreamUnavailable) as caught:
            await backend.check()
        await backend.close()
    assert "refused" in (caught.value.cause or "")
    assert KEY not in f"{caught.value.cause}"


async def test_tls(tmp_path: Path) -> None:
    """With `tls` the certificate is verified against `ca` and for the server's name."""
    key, _, rest = CERTIFICATE.partition("-----BEGIN CERTIFICATE-----")
    certificate = "-----BEGIN CERTIFICATE-----" + rest
    ca = tmp_path / "ca.pem"
    ca.write_text(certificate)
    credentials = grpc.ssl_server_credentials([(key.encode(), certificate.encode())])
    with ScriptedParley(credentials) as server:
        port = server.address.rpartition(":")[2]
        trusted = Parley(f"localhost:{port}", KEY, tls=True, ca=ca)
        strange, unnamed = Parley(f"localhost:{port}", KEY, tls=True), Parley(f"127.0.0.1:{port}", KEY, tls=True, ca=ca)
        plain_text = Parley(f"localhost:{port}", KEY)
        server.answer(HELLO)
        await trusted.complete(call())
        assert [UpstreamMisconfigured] * 2 == [type(await failure(other, call())) for other in (strange, unnamed)]
        assert UpstreamUnavailable is type(await failure(plain_text, call()))
        assert 1 == len(server.requests)
        for backend in (trusted, strange, unnamed, plain_text):
            await backend.close()


async def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing `ca` file raises ConfigError."""
    with pytest.raises(ConfigError, match=r"ca: .*none\.pem cannot be read"):
        Parley("localhost:1", tls=True, ca=tmp_path / "none.pem")


async def test_abandoned_streams(backend: Parley, upstream: ScriptedParley) -> None:
    """Abandoned streams leave no task behind, and no call at the other side."""
    before = len(asyncio.all_tasks())
    for number in range(100):
        upstream.answer(Answer([*chunks("Hel"), Stall()]))
        stream = backend.stream(call())
        await anext(stream)
        await stream.aclose()
        assert await upstream.requests[number].closed.arrives(1)
    assert before == len(asyncio.all_tasks())
    assert 1 == upstream.connections


async def test_truncated_after_the_head(backend: Parley, upstream: ScriptedParley) -> None:
    """A complete response that is truncated after its head is not retried."""
    gate = Gate()
    upstream.answer(Answer([gate, Cut()], head=(("x-seen", "xxxx"),)))
    task = asyncio.ensure_future(failure(backend, call()))
    await asyncio.wait_for(_sent(upstream, b"xxxx"), 10)
    gate.set()
    assert UpstreamUnreadable is type(await task)
