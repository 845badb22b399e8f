"""Large requests in progress, and bodies that need more memory than their size: what one caller may have."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
import yaml

from parley.supervisor.edge_settings import EdgeSettings
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.edge import conftest
from tests.edge.conftest import Edge, until
from tests.edge.test_workers import subfolder
from tests.edge.worker import Context, Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 2**20
CHAT = "/v1/chat/completions"
SENT = {"content-type": "application/json"}
OWN = "Too many large requests with this credential are in progress; try again when one of them has ended"
ALL = "Too many large requests are in progress; try again later"


def low(rendered: str) -> str:
    """Of 4 MiB that may be in progress in a thread of Envoy, one caller may use 3."""
    config: Any = yaml.safe_load(rendered)
    for listener in config["static_resources"]["listeners"]:
        for host in listener["filter_chains"][0]["filters"][-1]["typed_config"]["route_config"]["virtual_hosts"]:
            for script in host.get("metadata", {}).get("filter_metadata", {}).values():
                script |= {name: size * MIB for name, size in (("of_all", 4), ("of_caller", 3)) if name in script}
    return yaml.safe_dump(config, sort_keys=False)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def edge(the_worker: tuple[Worker, Path], run_dir: Path) -> AsyncIterator[Edge]:
    """One Envoy of one thread with low limits."""
    async with conftest.started(
        subfolder(run_dir, "low"), [the_worker[1]], EdgeSettings(threads=1), change=low
    ) as running:
        yield running


class Gate:
    """A handler whose calls wait until the gate opens."""

    def __init__(self, worker: Worker) -> None:
        self.waiting = 0
        self.opened = asyncio.Event()
        worker.complete = worker.chunks = self._handle

    async def _handle(self, _request: Any, _context: Context) -> ChatCompletion:
        self.waiting += 1
        await self.opened.wait()
        return ChatCompletion()

    async def wait_for(self, calls: int) -> None:
        """Waits until so many calls have arrived."""

        async def have_arrived() -> bool:
            return self.waiting >= calls

        await until(have_arrived)


def key(name: str) -> dict[str, str]:
    """Returns the header of a key of the right form."""
    return {"authorization": f"Bearer sk-{name}"}


def text(size: int) -> bytes:
    """Returns a body of at least this size."""
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * size}]}).encode()


async def in_parts(body: bytes) -> AsyncIterator[bytes]:
    """Yields the body in parts, so that its size is not declared."""
    for place in range(0, len(body), 2**16):
        yield body[place : place + 2**16]


async def post(session: aiohttp.ClientSession, caller: str, data: Any) -> tuple[int, str | None, str]:
    """Returns the status, `retry-after` and the message of the error."""
    async with session.post(CHAT, data=data, headers=SENT | key(caller)) as response:
        body = await response.json()
        return response.status, response.headers.get("retry-after"), body.get("error", {}).get("message", "")


async def test_large_bodies_of_a_caller_have_a_limit(edge: Edge, worker: Worker) -> None:
    """Beyond the limit a large body is a 429, of declared or unknown size. Other callers and small calls are served."""
    gate = Gate(worker)
    async with aiohttp.ClientSession(edge.http) as session:
        first = [
            asyncio.ensure_future(post(session, caller, text(size * MIB))) for caller, size in (("a", 2), ("b", 1))
        ]
        await gate.wait_for(2)
        assert (429, "1", OWN) == await post(session, "a", text(2 * MIB))
        assert (429, "1", OWN) == await post(session, "a", in_parts(text(2 * MIB)))
        assert (429, "1", ALL) == await post(session, "c", text(2 * MIB))
        small = [asyncio.ensure_future(post(session, caller, text(10))) for caller in ("a", "b", "c")]
        await gate.wait_for(5)
        gate.opened.set()
        assert [(200, None, "")] * 5 == await asyncio.gather(*first, *small)


async def test_many_bodies_of_moderate_size_are_in_progress(edge: Edge, worker: Worker) -> None:
    """A body counts as its size, such as the history of an agent; one of many short values counts as more."""
    gate = Gate(worker)
    history, dense = text(200 * 1024), b'{"model":"m","stop":[%b1]}' % (b"1," * 100_000)
    async with aiohttp.ClientSession(edge.http) as session:
        agents = [asyncio.ensure_future(post(session, "a", history)) for _ in range(14)]
        await gate.wait_for(14)
        assert (429, "1", OWN) == await post(session, "a", dense)
        gate.opened.set()
        assert [(200, None, "")] * 14 == await asyncio.gather(*agents)


async def test_an_ended_request_no_longer_counts(edge: Edge, worker: Worker) -> None:
    """A caller may go on when its requests have ended, also those that it has cancelled."""
    gate = Gate(worker)
    async with aiohttp.ClientSession(edge.http) as session:
        cancelled = asyncio.ensure_future(post(session, "a", text(2 * MIB)))
        await gate.wait_for(1)
        cancelled.cancel()
        await asyncio.wait({cancelled})
        gate.opened.set()

        async def is_served() -> bool:
            return (await post(session, "a", text(2 * MIB)))[0] == 200

        await until(is_served)
        assert [200] * 4 == [(await post(session, "a", text(2 * MIB)))[0] for _ in range(4)]


async def test_large_messages_of_a_caller_have_a_limit(edge: Edge, worker: Worker) -> None:
    """Over gRPC the error is RESOURCE_EXHAUSTED with a pushback, and leaves the caller's other calls alone."""
    gate = Gate(worker)
    request = CreateChatCompletionRequest.FromString(b"")
    request.messages.add(role="user").content.string_value = "x" * (2 * MIB)
    async with grpc.aio.insecure_channel(edge.grpc) as channel:
        stub, metadata = ChatCompletionsStub(channel), tuple(key("a").items())
        first = stub.CreateChatCompletion(request, metadata=metadata)
        await gate.wait_for(1)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CreateChatCompletion(request, metadata=metadata)
        assert (grpc.StatusCode.RESOURCE_EXHAUSTED, OWN) == (refused.value.code(), refused.value.details())
        trailers = dict(refused.value.trailing_metadata() or ())
        assert ("1000", "CONCURRENCY_LIMITED") == (
            trailers["grpc-retry-pushback-ms"],
            trailers["parley-error-reason"],
        )
        small = stub.CreateChatCompletion(CreateChatCompletionRequest(model="m"), metadata=metadata)
        await gate.wait_for(2)
        gate.opened.set()
        assert [ChatCompletion()] * 2 == [await first, await small]
        for _ in range(3):
            await stub.CreateChatCompletion(request, metadata=metadata)


DENSE = b"1," * 1_500_000 + b"1"
EXPANDING = {
    "stop": b'{"model":"m","stop":[%b]}' % DENSE,
    "messages": b'{"model":"m","messages":[%b{}]}' % (b"{}," * 1_000_000),
    "unknown": b'{"model":"m","messages":[{"role":"user","content":"x"}],"unknown":[%b]}' % DENSE,
    "after a text": b'{"model":"\\\\\\"[,","stop":[%b]}' % DENSE,
    "nested": b'{"model":"m","stop":[%b1]}' % (b"[[[[[[[[[1]]]]]]]]]," * 150_000),
}


@pytest.mark.parametrize("name", EXPANDING)
async def test_a_body_of_very_many_values_is_a_413(edge: Edge, worker: Worker, name: str) -> None:
    """A body with too many values for its size is rejected before the transcoder has it."""
    async with aiohttp.ClientSession(edge.http) as session:
        status, _, message = await post(session, "a", EXPANDING[name])
    limit = 131072 + len(EXPANDING[name]) // 16
    assert status == 413
    assert (
        f"The request body has more than {limit} JSON values, the limit for its size; send fewer, or as text" == message
    )
    assert [] == worker.calls


def _agent() -> dict[str, Any]:
    parameters = {f"p{place}": {"type": "string", "description": "d" * 40} for place in range(20)}
    tools = [
        {
            "type": "function",
            "function": {"name": f"f{place}", "parameters": {"type": "object", "properties": parameters}},
        }
        for place in range(300)
    ]
    return {"messages": [{"role": "user", "content": "x, [1, 2]" * 100}] * 2000, "tools": tools}


REAL = {
    "a long history of an agent": _agent(),
    "numbers in a text": {"messages": [{"role": "user", "content": "1,2,3,[4]," * 250_000}]},
    "a list of token ids": {"messages": [{"role": "user", "content": "x"}], "allowed_token_ids": [*range(128_000)]},
}


@pytest.mark.parametrize("name", REAL)
async def test_bodies_of_real_clients_pass(edge: Edge, worker: Worker, name: str) -> None:
    """Long histories with tools, tables as text, and a list of all tokens of a model reach the worker."""
    async with aiohttp.ClientSession(edge.http) as session:
        assert (200, None, "") == await post(session, "a", json.dumps({"model": "m", **REAL[name]}).encode())
    assert ["CreateChatCompletionJson"] == worker.calls
