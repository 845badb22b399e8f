"""The limits of connections: their age, and the calls of one at a time."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from parley.supervisor.edge_settings import DEFAULT_EDGE
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2 import ListModelsRequest
from parley.v1.models_pb2_grpc import ModelsStub
from tests.edge.conftest import AUTHORIZATION, channel_to, started, until
from tests.edge.test_workers import subfolder
from tests.edge.worker import Worker, gated

pytestmark = pytest.mark.asyncio(loop_scope="session")

REQUEST = CreateChatCompletionRequest(model="m")
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
DONE = b"data: [DONE]\n\n"


async def test_a_grpc_stream_outlives_the_maximum_age(run_dir: Path, the_worker: tuple[Worker, Path]) -> None:
    """Calls move to new connections, none fails, and a stream finishes on a connection that accepts no more calls."""
    gate = gated(the_worker[0], DONE)
    settings = replace(DEFAULT_EDGE, max_connection_age=0.3)
    async with (
        started(subfolder(run_dir, "age"), [the_worker[1]], settings, drain="0.1s") as edge,
        channel_to(edge.grpc) as channel,
    ):
        chat: Any = ChatCompletionsStub(channel)
        stream = aiter(chat.StreamChatCompletionEvents(REQUEST))
        await anext(stream)
        async with asyncio.timeout(60):
            while await edge.stat("http.grpc.downstream_cx_total") < 4:
                await ModelsStub(channel).ListModels(ListModelsRequest())
        gate.set()
        assert [b"data: [DONE]\n\n"] == [body.data async for body in stream]


async def test_a_rest_stream_outlives_the_maximum_age(run_dir: Path, the_worker: tuple[Worker, Path]) -> None:
    """A connection of HTTP/1.1 closes after its running response: the stream is complete."""
    gate = gated(the_worker[0], DONE)
    settings = replace(DEFAULT_EDGE, max_connection_age=0.3)
    async with (
        started(subfolder(run_dir, "age1"), [the_worker[1]], settings, drain="0.1s") as edge,
        aiohttp.ClientSession(edge.http, headers=AUTHORIZATION) as client,
        client.post("/v1/chat/completions", json=CHAT) as response,
    ):
        assert b"data: 1\n\n" == await response.content.readany()

        async def is_old() -> bool:
            return await edge.stat("http.http.downstream_cx_max_duration_reached") > 0

        await until(is_old)
        gate.set()
        assert b"data: [DONE]\n\n" == await response.content.read()


async def test_calls_beyond_the_limit_of_a_connection_wait(run_dir: Path, the_worker: tuple[Worker, Path]) -> None:
    """With `--max-streams 1` the second call of a connection waits for the first one and then succeeds."""
    gate = gated(the_worker[0], DONE)
    settings = replace(DEFAULT_EDGE, max_streams=1)
    async with (
        started(subfolder(run_dir, "streams"), [the_worker[1]], settings) as edge,
        channel_to(edge.grpc) as channel,
    ):
        chat: Any = ChatCompletionsStub(channel)
        stream = aiter(chat.StreamChatCompletionEvents(REQUEST))
        await anext(stream)
        waiting = asyncio.ensure_future(ModelsStub(channel).ListModels(ListModelsRequest()))
        await asyncio.sleep(0)
        async with channel_to(edge.grpc, [("grpc.use_local_subchannel_pool", 1)]) as other:
            await ModelsStub(other).ListModels(ListModelsRequest())
        assert not waiting.done()
        gate.set()
        assert [b"data: [DONE]\n\n"] == [body.data async for body in stream]
        assert "m" == (await waiting).data[0].id
