"""What a caller without a valid credential may cost: the headers of a request, and no body."""

import asyncio
import json
from typing import Any

import aiohttp
import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from parley.core.errors import AccountSuspended, InvalidApiKey, PlanRequired, StoreUnavailable
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.edge.conftest import AUTHORIZATION, Edge, channel_to
from tests.edge.errors import PATHS, REQUEST, message_of
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT, METHOD = PATHS["openai"], "/parley.v1.ChatCompletions/CreateChatCompletion"
CHECK = "/envoy.service.auth.v3.Authorization/Check"
# Bodies that are announced and not sent.
ANNOUNCED = {
    "8 MB": "Content-Length: 8000000\r\n",
    "1 GB": "Content-Length: 1000000000\r\n",
    "chunked": "Transfer-Encoding: chunked\r\n",
    "gzip": "Content-Encoding: gzip\r\nContent-Length: 500\r\n",
}
MALFORMED = [
    "Basic YTpi",
    "Bearer",
    "Bearer abc",
    "sk-1",
    "Bearer sk-",
    "Bearer sk-a b",
    "Bearer sk-a,Bearer sk-b",
    "Bearer sk-" + "x" * 300,
    "Bearer a.b",
    "Bearer a.b.c.d",
    "Bearer a.b!.c",
]


async def announced(edge: Edge, path: str, headers: str) -> tuple[int, dict[str, str], Any]:
    """Sends the head of a request without its body; returns the status, the headers and the JSON of the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}\r\n".encode())
    async with asyncio.timeout(60):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(fields["content-length"]))
    writer.close()
    return int(lines[0].split()[1]), fields, json.loads(body)


async def endless(target: str, credential: str | None) -> grpc.aio.AioRpcError:
    """Makes a gRPC call whose message never comes; returns its error."""
    metadata = None if credential is None else (("authorization", credential),)
    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.stream_unary(METHOD)(metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await asyncio.wait_for(call, 60)
    return failed.value


def reason(error: grpc.aio.AioRpcError) -> str:
    """Returns the reason in the details of an error."""
    trailers: dict[str, Any] = dict(error.trailing_metadata())
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details[0].Unpack(info)
    return str(info.reason)


@pytest.mark.parametrize("body", ["8 MB", "1 GB", "chunked"])
@pytest.mark.parametrize("dialect", PATHS)
async def test_row_1_a_missing_key_is_refused_before_the_body(
    edge: Edge, worker: Worker, dialect: str, body: str
) -> None:
    """A request without a key is a 401 in its dialect, from its headers alone; no worker is called.

    Kind: a body that is parsed before the authentication.
    """
    status, headers, answer = await announced(edge, PATHS[dialect], ANNOUNCED[body])
    assert (401, "Missing API key") == (status, message_of(dialect, answer))
    assert headers["www-authenticate"].startswith('bearer realm="parley"')
    assert ([], []) == (worker.calls, worker.checks)


@pytest.mark.parametrize("value", MALFORMED)
async def test_a_malformed_credential_is_refused_before_the_body(edge: Edge, worker: Worker, value: str) -> None:
    """A credential that no worker accepts is an invalid key, on both listeners."""
    status, _, answer = await announced(edge, CHAT, f"Authorization: {value}\r\n{ANNOUNCED['8 MB']}")
    assert (401, "Invalid API key") == (status, answer["error"]["message"])
    error = await endless(edge.grpc, value)
    assert (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY") == (error.code(), reason(error))
    assert ([], []) == (worker.calls, worker.checks)


@pytest.mark.parametrize("value", ["bearer sk-1", "BEARER  sk-a_b-c.~+/=", "Bearer eyJhbGciOiJSUzI1NiJ9.eyJ9.c2ln"])
async def test_other_forms_are_for_the_worker(
    client: aiohttp.ClientSession, edge: Edge, worker: Worker, value: str
) -> None:
    """Keys and access tokens of the right form reach the worker."""
    async with client.post(CHAT, json=REQUEST, headers={"authorization": value}) as response:
        assert 200 == response.status
    async with grpc.aio.insecure_channel(edge.grpc) as channel:
        ask = ChatCompletionsStub(channel).CreateChatCompletion
        await ask(CreateChatCompletionRequest(), metadata=(("authorization", value),))


async def test_row_3_a_missing_key_is_refused_before_the_message(edge: Edge, worker: Worker) -> None:
    """A gRPC call without a key is UNAUTHENTICATED while its message is awaited; the worker does not know of it.

    Kind: protections that one of the listeners lacks.
    """
    error = await endless(edge.grpc, None)
    assert (grpc.StatusCode.UNAUTHENTICATED, "MISSING_API_KEY") == (error.code(), reason(error))
    assert "Missing API key" == error.details()
    assert ([], []) == (worker.calls, worker.checks)


@pytest.mark.parametrize("body", ["8 MB", "chunked", "gzip"])
async def test_row_2_a_large_body_waits_for_the_check(edge: Edge, worker: Worker, body: str) -> None:
    """A worker checks the key before a body is read that is large, compressed or of unknown size.

    Kind: memory that callers without an account can fill.
    """
    worker.rejection = InvalidApiKey()
    headers = f"Authorization: {AUTHORIZATION['authorization']}\r\n{ANNOUNCED[body]}"
    status, _, answer = await announced(edge, CHAT, headers)
    assert (401, "Invalid API key") == (status, answer["error"]["message"])
    assert [("Bearer sk-1", "127.0.0.1")] == [(one.authorization, one.address) for one in worker.checks]
    assert [] == worker.calls


@pytest.mark.parametrize(
    ("rejection", "status", "code"),
    [
        (InvalidApiKey(), 401, "invalid_api_key"),
        (PlanRequired(), 401, "plan_required"),
        (AccountSuspended(), 403, "account_suspended"),
        (StoreUnavailable("no"), 503, "store_unavailable"),
        (RuntimeError("no"), 500, "internal"),
    ],
)
async def test_a_failed_check_is_answered_like_a_call(
    client: aiohttp.ClientSession, worker: Worker, rejection: Any, status: int, code: str
) -> None:
    """The status and the code of a large request are those of the error; an outage of the store is never a 401."""
    worker.rejection = rejection
    async with client.post(CHAT, data=b" " * 100_000, headers={"content-type": "application/json"}) as response:
        assert (status, code) == (response.status, (await response.json())["error"]["code"])
    assert [] == worker.calls


async def test_a_slow_check_is_waited_for(
    client: aiohttp.ClientSession, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that takes longer than the interval of retries, as with a slow store, is not repeated."""
    checks = 0

    async def reject(_credentials: Any) -> None:
        nonlocal checks
        checks += 1
        await asyncio.sleep(0.7)
        raise InvalidApiKey

    monkeypatch.setattr(worker, "authenticate", reject)
    async with client.post(CHAT, data=b" " * 100_000, headers={"content-type": "application/json"}) as response:
        assert (401, 1) == (response.status, checks)


async def test_a_grpc_message_waits_for_the_check(edge: Edge, worker: Worker) -> None:
    """A gRPC call with an unknown key fails while its message is awaited."""
    worker.rejection = InvalidApiKey()
    error = await endless(edge.grpc, "Bearer sk-unknown")
    assert (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY") == (error.code(), reason(error))
    worker.rejection = StoreUnavailable("no")
    error = await endless(edge.grpc, "Bearer sk-unknown")
    assert (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE") == (error.code(), reason(error))
    assert [] == worker.calls


async def test_small_requests_are_not_checked(client: aiohttp.ClientSession, worker: Worker) -> None:
    """The worker that answers a small request authenticates it: there is no second call."""
    async with client.post(CHAT, json=REQUEST) as response:
        assert 200 == response.status
    async with client.get("/v1/models") as response:
        assert 200 == response.status
    assert [] == worker.checks


async def test_grpc_calls_of_an_accepted_key_are_seldom_checked(edge: Edge, worker: Worker) -> None:
    """Most gRPC libraries do not announce the size: a key is checked twice a second, not with every call."""
    async with channel_to(edge.grpc) as channel:
        ask = ChatCompletionsStub(channel).CreateChatCompletion
        await ask(CreateChatCompletionRequest())
        await asyncio.gather(*(ask(CreateChatCompletionRequest()) for _ in range(100)))
    assert 1 <= len(worker.checks) < 50
    assert 101 == len(worker.calls)


async def test_a_flood_of_wrong_keys_is_hardly_checked(edge: Edge, worker: Worker) -> None:
    """Beyond its limit, an address's unknown credentials are refused without a check; an accepted one is served."""
    accepted, wrong = (("authorization", f"Bearer sk-{letter * 43}") for letter in "aw")
    async with grpc.aio.insecure_channel(edge.grpc) as channel:
        ask = ChatCompletionsStub(channel).CreateChatCompletion
        await ask(CreateChatCompletionRequest(), metadata=(accepted,))
        worker.rejection = InvalidApiKey()
        flood = [ask(CreateChatCompletionRequest(), metadata=(wrong,)) for _ in range(600)]
        errors = await asyncio.gather(*flood, return_exceptions=True)
        reasons = [reason(error) for error in errors if isinstance(error, grpc.aio.AioRpcError)]
        assert 600 == len(reasons)
        assert {"INVALID_API_KEY", "RATE_LIMITED"} == set(reasons)
        assert reasons.count("INVALID_API_KEY") <= len(worker.checks) < 600
        worker.rejection = None
        await ask(CreateChatCompletionRequest(), metadata=(accepted,))


async def test_the_check_is_not_for_callers(edge: Edge, worker: Worker) -> None:
    """No route of the listeners leads to the service that Envoy calls."""
    for target in (edge.grpc, f"127.0.0.1:{edge.port}"):
        async with channel_to(target) as channel:
            call: Any = channel.unary_unary(CHECK)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call(b"")
        assert failed.value.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN}
    assert [] == worker.checks


async def test_the_client_s_address_cannot_be_forged(client: aiohttp.ClientSession, edge: Edge, worker: Worker) -> None:
    """The worker gets the address of the connection, whatever the caller says."""
    forged = {"parley-client-address": "192.0.2.1", "x-forwarded-for": "192.0.2.1"}
    async with client.post(CHAT, json=REQUEST, headers=forged) as response:
        assert 200 == response.status
    assert "127.0.0.1" == worker.metadata["parley-client-address"]
    async with channel_to(edge.grpc) as channel:
        ask = ChatCompletionsStub(channel).CreateChatCompletion
        await ask(CreateChatCompletionRequest(), metadata=tuple(forged.items()))
    assert "127.0.0.1" == worker.metadata["parley-client-address"]


async def test_unknown_paths_do_not_keep_a_body(edge: Edge, worker: Worker) -> None:
    """A gRPC call of an unknown service fails while its message is awaited, with and without a key."""
    async with channel_to(edge.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await asyncio.wait_for(channel.stream_unary("/x.Y/Z")(), 60)
    assert grpc.StatusCode.UNIMPLEMENTED == failed.value.code()


@pytest.mark.parametrize("dialect", PATHS)
async def test_row_21_failures_of_an_address_are_limited(edge: Edge, worker: Worker, dialect: str) -> None:
    """After a hundred failures an address gets 429 in the dialect with a delay, and a valid key still succeeds.

    Kind: guesses without a limit.
    """
    async with aiohttp.ClientSession(edge.http) as session:
        seen = []
        for _ in range(250):
            async with session.post(PATHS[dialect], json=REQUEST) as response:
                seen.append(response.status)
                answer = await response.json()
            if response.status == 429:
                break
        assert {401, 429} >= set(seen)
        assert 429 == seen[-1]
        assert "Too many calls without a valid credential" in message_of(dialect, answer)
        assert int(response.headers["retry-after"]) >= 1
        async with session.post(PATHS[dialect], json=REQUEST, headers=AUTHORIZATION) as response:
            assert 200 == response.status
