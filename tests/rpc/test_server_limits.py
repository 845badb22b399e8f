"""The limits of a server without an edge."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from parley.rpc.server_options import ServerLimits
from parley.v1.models_pb2 import ListModelsRequest
from parley.v1.models_pb2_grpc import ModelsStub
from tests.edge.security.probe.http2 import DATA, END_STREAM, PING, Connection, frame
from tests.rpc.calling import chat_request
from tests.rpc.conftest import serving
from tests.rpc.scripted import chunks
from tests.rpc.test_lifecycle import Running

LIMITS = ServerLimits(max_body=2**20, max_streams=1000, max_connection_age=0)
EXCEEDED = grpc.StatusCode.RESOURCE_EXHAUSTED


@asynccontextmanager
async def limited(folder: Path, limits: ServerLimits) -> AsyncIterator[Running]:
    """Runs a server with these limits on the loop of the test."""
    async with serving(folder, limits=limits) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        yield Running(worker, channel)


async def test_a_message_over_the_limit_names_both_sizes(tmp_path: Path, log_file: Path) -> None:
    """A message over `--max-body` is RESOURCE_EXHAUSTED; grpcio's message has its size and the limit."""
    async with limited(tmp_path, LIMITS) as running:
        request = chat_request()
        request.messages[0].content.string_value = "x" * 2**20
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await running.chat.CreateChatCompletion(request, metadata=running.metadata)
    assert EXCEEDED == failed.value.code()
    assert str(2**20) in (failed.value.details() or "")


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
async def test_an_invalid_key_is_rejected_before_the_message(tmp_path: Path, log_file: Path, *, kind: str) -> None:
    """A call with an invalid key ends after its headers, without its message, which may never come."""
    method = {"stream_unary": "CreateChatCompletion", "stream_stream": "StreamChatCompletion"}[kind]
    async with limited(tmp_path, LIMITS) as running:
        path = f"/parley.v1.ChatCompletions/{method}"
        call: Any = getattr(running.channel, kind)(path)(metadata=(("authorization", "Bearer sk-wrong"),))
        status = await asyncio.wait_for(call.code(), 60)
    assert grpc.StatusCode.UNAUTHENTICATED == status


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
async def test_a_call_without_a_message_is_rejected(tmp_path: Path, log_file: Path, *, kind: str) -> None:
    """A caller that ends its side of a call without a message gets INVALID_ARGUMENT."""
    method = {"stream_unary": "CreateChatCompletion", "stream_stream": "StreamChatCompletion"}[kind]
    async with limited(tmp_path, LIMITS) as running:
        call: Any = getattr(running.channel, kind)(f"/parley.v1.ChatCompletions/{method}")(metadata=running.metadata)
        await call.done_writing()
        status = await asyncio.wait_for(call.code(), 60)
    assert grpc.StatusCode.INVALID_ARGUMENT == status


async def test_metadata_over_the_limit_names_the_limit(tmp_path: Path, log_file: Path) -> None:
    """Metadata is accepted up to what the edge accepts, and always rejected above it: there is no random range."""
    async with limited(tmp_path, LIMITS) as running:
        models: Any = ModelsStub(running.channel)
        key = running.metadata[0]
        await models.ListModels(ListModelsRequest(), metadata=[key, ("x", "x" * 12_000)])
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await models.ListModels(ListModelsRequest(), metadata=[key, ("x", "x" * 21_000)])
            assert EXCEEDED == failed.value.code()
            assert "20480" in (failed.value.details() or "")


async def test_a_stream_outlives_the_maximum_age_of_its_connection(tmp_path: Path, log_file: Path) -> None:
    """Calls move to a new connection at the maximum age, without a failure; a stream finishes on the old one."""
    limits = replace(LIMITS, max_connection_age=0.2)
    async with (
        serving(tmp_path, limits=limits) as worker,
        relay(worker.address) as (address, connections),
        grpc.aio.insecure_channel(address) as channel,
    ):
        running, gate = Running(worker, channel), asyncio.Event()
        running.backend.answer = lambda _: [chunks("a")[0], gate, *chunks("b")]
        stream = aiter(running.chat.StreamChatCompletion(chat_request(), metadata=running.metadata))
        await anext(stream)
        models: Any = ModelsStub(channel)
        async with asyncio.timeout(60):
            while len(connections) < 3:
                await models.ListModels(ListModelsRequest(), metadata=running.metadata)
        gate.set()
        rest = [chunk async for chunk in stream]
    assert ["stop"] == [choice.finish_reason for chunk in rest for choice in chunk.choices if choice.finish_reason]


@asynccontextmanager
async def relay(address: str) -> AsyncIterator[tuple[str, list[object]]]:
    """Forwards connections to an address; yields its own address and the connections so far."""
    host, _, port = address.rpartition(":")
    connections: list[object] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        with suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(forward(reader, far_writer), forward(far_reader, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    yield "{}:{}".format(*server.sockets[0].getsockname()), connections
    server.close()


@pytest.mark.parametrize("reflection", [True, False])
async def test_reflection_can_be_switched_off(tmp_path: Path, log_file: Path, *, reflection: bool) -> None:
    """With `--no-reflection` the methods of reflection are unknown."""
    async with limited(tmp_path, replace(LIMITS, reflection=reflection)) as running:
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = reflection_pb2_grpc.ServerReflectionStub(running.channel).ServerReflectionInfo(iter([question]))
        if reflection:
            assert "parley.v1.Models" in {
                service.name for service in (await answers.read()).list_services_response.service
            }
            return
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await answers.read()
        assert grpc.StatusCode.UNIMPLEMENTED == failed.value.code()


async def test_a_worker_behind_an_edge_pings_nobody(tmp_path: Path, log_file: Path) -> None:
    """A request has no ping for an answer, by which grpc-core measures the bandwidth: Envoy checks the health often."""
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", "parley"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    async with serving(tmp_path) as worker:
        connection = await Connection.open(worker.address)
        for _ in range(3):
            stream = connection.request(headers)
            connection.send(frame(DATA, END_STREAM, stream, bytes(5)))
            async with asyncio.timeout(60):
                while stream not in connection.ended:
                    await asyncio.sleep(0.001)
        pings = connection.frames[PING]
        await connection.close()
    assert 0 == pings
