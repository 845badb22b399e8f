"""An unavailable store: health, errors and recovery."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from parley.core.sessions.store_monitor import StoreMonitor
from parley.rpc.shutdown import Shutdown
from parley.v1 import models_pb2, sessions_pb2
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2_grpc import ModelsStub
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.e2e.rollouts.settings import RECOMMENDED
from tests.rpc.calling import chat_request
from tests.rpc.conftest import Worker, serving
from tests.rpc.scripted import chunks
from tests.rpc.test_lifecycle import Running

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("parley.v1.ChatCompletions", "parley.v1.Sessions", "parley.v1.Models")


async def listed(channel: grpc.aio.Channel) -> list[str]:
    """Returns the services that reflection lists."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await call.done_writing()
    answer = await call.read()
    return [service.name for service in answer.list_services_response.service]


class Watched(Running):
    """A running server with a store monitor and a store file that can be moved away."""

    def __init__(self, worker: Worker, channel: grpc.aio.Channel, file: Path) -> None:
        super().__init__(worker, channel)
        self.address = worker.address
        self._file = file
        self._away = file.with_name("away.db")
        self.watch = StoreMonitor(worker.store, worker.server.store_changed, interval_seconds=0.01)

    def take_away(self) -> None:
        """Moves the file away."""
        self._file.rename(self._away)

    def bring_back(self) -> None:
        """Moves the file back."""
        self._away.rename(self._file)

    async def health(self, service: str) -> int:
        """Returns the health of a service."""
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        return answer.status  # type: ignore[no-any-return]

    async def becomes(self, status: int) -> None:
        """Waits until every service has this health."""
        async with asyncio.timeout(30):
            while {status} != {await self.health(service) for service in SERVICES}:
                await asyncio.sleep(0.01)


@pytest.fixture
async def watched(tmp_path: Path, log_file: Path) -> AsyncIterator[Watched]:
    """The running server."""
    async with serving(tmp_path) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        made = Watched(worker, channel, tmp_path / "parley.db")
        made.watch.start()
        yield made
        await made.watch.stop()


async def test_health_follows_the_store(watched: Watched) -> None:
    """The services turn NOT_SERVING and back; the worker itself stays SERVING, so that Envoy keeps sending calls."""
    await watched.becomes(SERVING)
    watched.take_away()
    await watched.becomes(NOT_SERVING)
    assert SERVING == await watched.health("")
    watched.bring_back()
    await watched.becomes(SERVING)


async def test_every_service_has_its_health(watched: Watched) -> None:
    """Each service that reflection lists has a health; Identity needs no store."""
    names = [name for name in await listed(watched.channel) if name.startswith("parley.")]
    assert 5 == len(names)
    assert {SERVING} == {await watched.health(name) for name in names}
    watched.take_away()
    await watched.becomes(NOT_SERVING)
    assert SERVING == await watched.health("parley.v1.Identity")


async def test_clients_with_the_recommended_config_keep_their_address(watched: Watched) -> None:
    """Their calls reach the worker, where they wait for the store or get the reason."""
    options = [("grpc.service_config", json.dumps({**RECOMMENDED, "methodConfig": []}))]
    async with grpc.aio.insecure_channel(watched.address, options=options) as channel:
        chat: Any = ChatCompletionsStub(channel)
        await chat.CreateChatCompletion(chat_request(), metadata=watched.metadata)
        watched.take_away()
        await watched.becomes(NOT_SERVING)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await chat.CreateChatCompletion(chat_request(), metadata=watched.metadata, timeout=5)
        assert "STORE_UNAVAILABLE" == dict(caught.value.trailing_metadata() or ()).get("parley-error-reason")


async def test_completions_need_a_model(watched: Watched) -> None:
    """Without a model that can be called, chat completions are NOT_SERVING, and sessions serve on."""
    await watched.server.models_changed(is_callable=False)
    assert [NOT_SERVING, SERVING, SERVING] == [await watched.health(name) for name in SERVICES]
    await watched.server.models_changed(is_callable=True)
    await watched.becomes(SERVING)


async def test_calls_fail_immediately_with_the_reason(watched: Watched) -> None:
    """Every method fails with UNAVAILABLE and its reason, no key is called invalid, and all methods recover."""
    await watched.chat.CreateChatCompletion(chat_request(), metadata=watched.metadata)
    watched.take_away()
    await watched.becomes(NOT_SERVING)
    sessions: Any = SessionsStub(watched.channel)
    models: Any = ModelsStub(watched.channel)
    unknown = (("authorization", "Bearer sk-unknown"),)
    for method, request, metadata in (
        (watched.chat.CreateChatCompletion, chat_request(), watched.metadata),
        (watched.chat.CreateChatCompletion, chat_request(), unknown),
        (sessions.ListSessions, sessions_pb2.ListSessionsRequest(), watched.metadata),
        (models.ListModels, models_pb2.ListModelsRequest(), unknown),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request, metadata=metadata, timeout=5)
        trailing = dict(caught.value.trailing_metadata() or ())
        assert (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "1") == (
            caught.value.code(),
            trailing["parley-error-reason"],
            trailing["retry-after"],
        )
    watched.bring_back()
    await watched.becomes(SERVING)
    assert (await watched.chat.CreateChatCompletion(chat_request(), metadata=watched.metadata)).id
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watched.chat.CreateChatCompletion(chat_request(), metadata=unknown)
    assert grpc.StatusCode.UNAUTHENTICATED == caught.value.code()


async def test_a_stream_that_cannot_be_stored_fails(watched: Watched) -> None:
    """A stream whose turn cannot be stored delivers its text and fails: it is not acknowledged."""
    gate = asyncio.Event()
    watched.backend.answer = lambda _: [chunks("a")[0], gate, *chunks("b")]
    bodies = aiter(watched.chat.StreamChatCompletionEvents(chat_request(), metadata=watched.metadata))
    await anext(bodies)
    watched.take_away()
    gate.set()
    text = b"".join([body.data async for body in bodies])
    watched.bring_back()
    assert b"store_unavailable" in text
    assert b"[DONE]" not in text


async def test_a_stopping_worker_stays_not_serving(watched: Watched) -> None:
    """The recovery of the store does not make a stopping worker SERVING."""
    gate = asyncio.Event()
    watched.backend.answer = lambda _: [chunks("a")[0], gate, *chunks("b")]
    running = aiter(watched.chat.StreamChatCompletion(chat_request(), metadata=watched.metadata))
    await anext(running)
    stub: Any = health_pb2_grpc.HealthStub(watched.channel)
    seen = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0]))
    assert SERVING == (await seen.read()).status
    watched.take_away()
    assert NOT_SERVING == (await seen.read()).status
    stopping = asyncio.create_task(watched.server.stop(Shutdown(grace=30)))
    await asyncio.sleep(0)
    watched.bring_back()
    while not watched.watch.is_available:
        await asyncio.sleep(0.01)
    next_status = asyncio.ensure_future(seen.read())
    gate.set()
    async for _ in running:
        pass
    assert not next_status.done()
    seen.cancel()
    await stopping
    with pytest.raises(asyncio.CancelledError):
        await next_status
