"""Headers that are forwarded, headers that are removed, and the ids."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import aiohttp
import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.edge.conftest import AUTHORIZATION, Edge, channel_to
from tests.edge.worker import Context, Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def test_missing_ids_are_created(client: aiohttp.ClientSession, worker: Worker) -> None:
    """The response and the worker get one UUID for both ids."""
    async with client.post(CHAT, json=REQUEST) as response:
        request_id = response.headers["x-request-id"]
        assert UUID.fullmatch(request_id)
        assert request_id == response.headers["x-correlation-id"]
    assert (request_id, request_id) == (worker.metadata["x-request-id"], worker.metadata["x-correlation-id"])


IDS = [
    "Request_1",
    "a.B-9_" + "x" * 250,
    "order:42/7",
    "b2sgPT8+Zg==",
    "x" * 200,
    'a"b',
    "a,b",
    "a b {}<>\\%20 ~",
    "%REQ(x)%",
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("value", IDS)
async def test_the_caller_s_ids_are_kept(
    client: aiohttp.ClientSession, worker: Worker, value: str, *, stream: bool
) -> None:
    """An id of up to 256 bytes of printable ASCII reaches the worker and is returned unchanged, unary and streaming."""
    headers = {"x-request-id": value, "x-correlation-id": value[::-1]}
    async with client.post(CHAT, json=REQUEST | {"stream": stream}, headers=headers) as response:
        assert headers == {name: response.headers[name] for name in headers}
    assert headers == {name: worker.metadata[name] for name in headers}


@pytest.mark.parametrize("value", ["", "x" * 257, "é", "a\tb", "a\x80b"])
async def test_ids_that_are_not_plain_are_replaced(client: aiohttp.ClientSession, worker: Worker, value: str) -> None:
    """An id that could break logs or other headers is neither forwarded nor returned."""
    headers = {"x-request-id": value, "x-correlation-id": value}
    async with client.post(CHAT, json=REQUEST, headers=headers) as response:
        assert re.fullmatch(r"[0-9a-f-]{32,36}", response.headers["x-request-id"])
        assert response.headers["x-request-id"] == response.headers["x-correlation-id"]
    assert response.headers["x-request-id"] == worker.metadata["x-request-id"]
    assert response.headers["x-request-id"] == worker.metadata["x-correlation-id"]


async def test_made_up_ids_differ(client: aiohttp.ClientSession) -> None:
    """Two callers with an invalid id get different replacements."""
    ids = set()
    for _ in range(5):
        async with client.get("/v1/models", headers={"x-request-id": "a\tb"}) as response:
            ids.add(response.headers["x-request-id"])
    assert 5 == len(ids)


@pytest.mark.parametrize(("value", "kept"), [("mine", True), ("a\tb", False)])
async def test_errors_carry_the_ids_too(
    client: aiohttp.ClientSession, worker: Worker, value: str, *, kept: bool
) -> None:
    """A request that is rejected before it is complete has ids, too."""
    large = b'{"user":"' + b"x" * 9_000_000
    for url, data in (("/nothing", b"{}"), ("/healthz", b"{}"), (CHAT, b"{"), (CHAT, large)):
        headers = {"content-type": "application/json", "x-correlation-id": value}
        async with client.post(url, data=data, headers=headers) as response:
            expected = value if kept else response.headers["x-request-id"]
            assert expected == response.headers["x-correlation-id"]


async def test_internal_request_headers_are_removed(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Headers that only the edge or gRPC may set are removed, and headers for callers are forwarded."""
    dropped = [
        "parley-error-reason",
        "parley-account",
        "grpc-timeout",
        "grpc-encoding",
        "x-data-bin",
        "x-envoy-retry-on",
    ]
    headers = dict.fromkeys(dropped, "1") | {"authorization": "Bearer sk-1", "x-chat-session-id": "s"}
    async with client.post(CHAT, json=REQUEST, headers=headers) as response:
        assert 200 == response.status
    assert set() == set(dropped) & worker.metadata.keys()
    assert [] == [name for name in worker.metadata if name.startswith("x-envoy-")]
    assert "Bearer sk-1" == worker.metadata["authorization"]
    assert "s" == worker.metadata["x-chat-session-id"]


async def test_the_number_of_parleys_reaches_the_worker(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Another Parley sends it; the worker rejects a call that has passed through too many."""
    async with client.post(CHAT, json=REQUEST, headers={"x-parley-hops": "3"}) as response:
        assert 200 == response.status
    assert "3" == worker.metadata["x-parley-hops"]


@pytest.mark.parametrize("stream", [False, True])
async def test_internal_response_headers_are_removed(
    client: aiohttp.ClientSession, worker: Worker, *, stream: bool
) -> None:
    """A response has its session and its ids, and no headers of gRPC, Envoy or the workers."""
    metadata = (("x-chat-session-id", "s"), ("parley-error-reason", "x"))

    async def complete(_request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        await context.send_initial_metadata(metadata)
        return ChatCompletion(id="c")

    async def events(_request: CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        await context.send_initial_metadata(metadata)
        yield HttpBody(content_type="text/event-stream", data=b"data: [DONE]\n\n")

    worker.complete, worker.events = complete, events
    async with client.post(CHAT, json=REQUEST | {"stream": stream}) as response:
        names = {name.lower() for name in response.headers}
        assert "s" == response.headers["x-chat-session-id"]
        assert response.headers["parley-processing-ms"].isdigit()
    shown = {"content-type", "x-chat-session-id", "x-request-id", "x-correlation-id", "parley-processing-ms", "date"}
    shown |= {"x-content-type-options", "content-security-policy", "referrer-policy", "cache-control"}
    shown |= {"x-accel-buffering"} if stream else set()
    assert shown == names - {"content-length", "transfer-encoding"}


RECEIPT = ("parley-receipt-bin", b"\x0a\x00")


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fails", [False, True])
async def test_no_receipt_over_rest(edge: Edge, worker: Worker, *, version: str, stream: bool, fails: bool) -> None:
    """A receipt is for gRPC callers only: no headers or trailers of a REST response, stream or error contain it."""

    async def complete(_request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        context.set_trailing_metadata((RECEIPT, ("parley-error-reason", "UPSTREAM_UNAVAILABLE")))
        if fails:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no")
        return ChatCompletion(id="c")

    async def events(request: CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        await complete(request, context)
        yield HttpBody(content_type="text/event-stream", data=b"data: [DONE]\n\n")

    worker.complete, worker.events = complete, events
    command = ["curl", version, "--silent", "--show-error", "--dump-header", "-", "--header", "te: trailers"]
    command += ["--oauth2-bearer", "sk-1"]
    command += ["--json", json.dumps(REQUEST | {"stream": stream}), edge.http + CHAT]
    curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    shown = (await curl.communicate())[0].decode().lower()
    assert ("503" if fails else "200") == shown.split()[1]
    assert "x-request-id" in shown
    assert "receipt" not in shown


async def test_receipts_over_grpc(edge: Edge, worker: Worker) -> None:
    """The gRPC listener forwards the receipts of answers and of failures."""

    async def refuse(_request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "no", (RECEIPT,))
        raise AssertionError

    async def complete(_request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        context.set_trailing_metadata((RECEIPT,))
        return ChatCompletion(id="c")

    async with channel_to(edge.grpc) as channel:
        for worker.complete in (complete, refuse):
            call = ChatCompletionsStub(channel).CreateChatCompletion(CreateChatCompletionRequest())
            await call.code()
            assert RECEIPT[1] == dict(await call.trailing_metadata())[RECEIPT[0]]


LIMITS = (
    ("x-ratelimit-limit-requests", "60"),
    ("x-ratelimit-remaining-requests", "0"),
    ("x-ratelimit-reset-requests", "1m0s"),
    ("x-ratelimit-limit-tokens", "1000"),
    ("x-ratelimit-remaining-tokens", "999"),
    ("x-ratelimit-reset-tokens", "60ms"),
)


@pytest.mark.parametrize("stream", [False, True])
async def test_rate_limits_are_in_every_response(
    client: aiohttp.ClientSession, worker: Worker, *, stream: bool
) -> None:
    """Rate limits are in the headers of unary and streaming responses, and of a rejection with its `retry-after`."""

    async def complete(_request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        await context.send_initial_metadata(LIMITS)
        return ChatCompletion(id="c")

    async def events(_request: CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        await context.send_initial_metadata(LIMITS)
        yield HttpBody(content_type="text/event-stream", data=b"data: [DONE]\n\n")

    async def refuse(_request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        context.set_trailing_metadata((*LIMITS, ("parley-error-reason", "RATE_LIMITED"), ("retry-after", "1")))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Enough")

    async def refuse_stream(request: CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        await refuse(request, context)
        yield HttpBody()

    worker.complete, worker.events = complete, events
    async with client.post(CHAT, json=REQUEST | {"stream": stream}) as response:
        assert (200, dict(LIMITS)) == (response.status, {name: response.headers[name] for name, _ in LIMITS})
    worker.complete, worker.events = refuse, refuse_stream
    async with client.post(CHAT, json=REQUEST | {"stream": stream}) as response:
        assert (429, dict(LIMITS)) == (response.status, {name: response.headers[name] for name, _ in LIMITS})
        assert ("1", "true") == (response.headers["retry-after"], response.headers["x-should-retry"])


@pytest.mark.parametrize("path", ["/nothing", "/healthz", "/v1/chat/completions", "/v1/models/m"])
async def test_no_answer_names_envoy(client: aiohttp.ClientSession, path: str) -> None:
    """Errors and health checks have no headers of Envoy either."""
    async with client.get(path) as response:
        names = {name.lower() for name in response.headers}
    assert set() == {name for name in names if name == "server" or name.startswith(("x-envoy-", "grpc-"))}


async def test_proxies_do_not_buffer_a_stream(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Streams have headers against caches and buffering proxies; unary responses are not stored."""
    async with client.post(CHAT, json=REQUEST | {"stream": True}) as response:
        reported = (response.headers["cache-control"], response.headers["x-accel-buffering"])
    assert ("no-cache", "no") == reported
    async with client.post(CHAT, json=REQUEST) as response:
        assert "no-store" == response.headers["cache-control"]
        assert "x-accel-buffering" not in response.headers


async def test_native_callers_keep_their_metadata(edge: Edge, worker: Worker) -> None:
    """The gRPC listener forwards binary metadata and deadlines, and sets an id for each call."""
    async with channel_to(edge.grpc) as channel:
        metadata = (("x-data-bin", b"\0\1"), ("x-correlation-id", "mine"))
        await ChatCompletionsStub(channel).CreateChatCompletion(
            CreateChatCompletionRequest(), metadata=metadata, timeout=60
        )
    assert dict(metadata) == {name: worker.metadata[name] for name, _ in metadata}
    assert AUTHORIZATION["authorization"] == worker.metadata["authorization"]
    assert UUID.fullmatch(worker.metadata["x-request-id"])


async def test_names_that_grpc_rejects_are_dropped(client: aiohttp.ClientSession, worker: Worker) -> None:
    """A header with a name that HTTP allows and gRPC does not is removed, and the call succeeds."""
    odd = {f"x{character}y": "1" for character in "!#$%&'*+^`|~"}
    async with client.post(CHAT, json=REQUEST, headers=odd | {"x.y-z9": "1"}) as response:
        assert 200 == response.status
    assert "1" == worker.metadata["x.y-z9"]
    assert [] == [name for name in worker.metadata if name in odd]


@pytest.mark.parametrize(("name", "value"), [("x", "1"), ("x", "x" * 10_000), ("parley-large-headers", "1")])
async def test_the_mark_of_large_headers_reaches_no_worker(
    client: aiohttp.ClientSession, edge: Edge, worker: Worker, name: str, value: str
) -> None:
    """Headers near the limit are marked for the scripts. The mark is removed, and clients cannot set it."""
    async with client.post(CHAT, json=REQUEST, headers={name: value}) as response:
        assert 200 == response.status
    assert "parley-large-headers" not in worker.metadata
    async with channel_to(edge.grpc) as channel:
        await ChatCompletionsStub(channel).CreateChatCompletion(
            CreateChatCompletionRequest(), metadata=((name, value),)
        )
    assert "parley-large-headers" not in worker.metadata


@pytest.mark.parametrize("count", [75, 82])
async def test_as_many_headers_as_allowed_reach_the_worker(
    client: aiohttp.ClientSession, worker: Worker, count: int
) -> None:
    """Requests with more than 80 headers, which the scripts count, succeed like those with fewer."""
    headers = {f"x-{number}": "1" for number in range(count)}
    async with client.post(CHAT, json=REQUEST, headers=headers) as response:
        assert 200 == response.status
    assert headers.keys() <= worker.metadata.keys()
