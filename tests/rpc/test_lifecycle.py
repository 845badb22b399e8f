"""Keep-alive comments, shutdown and stalled streams of a worker's server."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from parley.core.errors import StreamBroken
from parley.core.ports import SessionFilter
from parley.rpc.shutdown import Shutdown
from parley.rpc.sse import KEEP_ALIVE
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests import sse
from tests.e2e.rollouts.settings import RECOMMENDED
from tests.rpc.calling import chat_request
from tests.rpc.conftest import Worker, serving
from tests.rpc.scripted import ScriptedBackend, chunks, completion

WATCHED = RECOMMENDED["healthCheckConfig"]["serviceName"]
LONG_STREAM = chunks("x" * 100_000)[:1] * 2_000
"""200 MB: more than the buffers between the backend and a slow reader hold."""


class Running:
    """A server of the test on the test's loop, with a channel to it."""

    def __init__(self, worker: Worker, channel: grpc.aio.Channel) -> None:
        self.server = worker.server
        self.backend = worker.backend
        self.turns, self.store = worker.turns, worker.store
        self.channel = channel
        self.metadata = (("authorization", f"Bearer {worker.keys['ada']}"),)
        self.chat: Any = ChatCompletionsStub(channel)


@pytest.fixture
async def running(tmp_path: Path, log_file: Path) -> AsyncIterator[Running]:
    """A running server with a keep-alive interval of 50 ms."""
    async with (
        serving(tmp_path, keep_alive_seconds=0.05) as worker,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        yield Running(worker, channel)


async def test_silence_is_filled_with_comments(running: Running) -> None:
    """Comments are sent before the first token and between tokens, so that proxies keep the connection open."""
    gates = [asyncio.Event(), asyncio.Event()]
    running.backend.answer = lambda _: [gates[0], chunks("a")[0], gates[1], *chunks("b")]
    bodies = aiter(running.chat.StreamChatCompletionEvents(chat_request(), metadata=running.metadata))
    for gate in gates:
        while True:
            body = await anext(bodies)
            if body.data == KEEP_ALIVE:
                break
        gate.set()
    rest = [body.data async for body in bodies]
    assert rest[-1].endswith(b"data: [DONE]\n\n")


async def test_repeated_text_counts_as_silence(tmp_path: Path, log_file: Path) -> None:
    """Comments are sent while a second target repeats the delivered text."""
    config = """
backends: {scripted: {kind: openai, base_url: "http://127.0.0.1:1/v1"}, other: {kind: openai, base_url: "http://a"}}
models:
  - {id: m, targets: [{backend: scripted}], fallbacks: [spare], hedge: "off"}
  - {id: spare, targets: [{backend: other}]}
"""
    gate, other = asyncio.Event(), ScriptedBackend()
    other.answer = lambda _: [chunks("The capital")[0], gate, *chunks(" of France", " is Paris.")]
    async with (
        serving(tmp_path, config, time.time, {"other": other}, keep_alive_seconds=0.05) as worker,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        worker.backend.answer = lambda _: [chunks("The capital of France ")[0], StreamBroken("broke off")]
        running = Running(worker, channel)
        bodies = aiter(running.chat.StreamChatCompletionEvents(chat_request(model="m"), metadata=running.metadata))
        found = []
        async for body in bodies:
            found.append(body.data)
            if body.data == KEEP_ALIVE and other.calls:
                gate.set()
    assert "The capital of France is Paris." == sse.text(sse.chunks(b"".join(found)))
    assert KEEP_ALIVE in found


async def test_a_stopping_server_is_not_serving_and_lets_streams_finish(running: Running) -> None:
    """Health turns NOT_SERVING first; running streams may end within the grace period."""
    gate = asyncio.Event()
    running.backend.answer = lambda _: [chunks("a")[0], gate, *chunks("b")]
    bodies = aiter(running.chat.StreamChatCompletionEvents(chat_request(), metadata=running.metadata))
    await anext(bodies)
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=WATCHED))
    assert health_pb2.HealthCheckResponse.SERVING == (await watch.read()).status
    stopping = asyncio.create_task(running.server.stop(Shutdown(grace=30)))
    assert health_pb2.HealthCheckResponse.NOT_SERVING == (await watch.read()).status
    watch.cancel()
    gate.set()
    rest = [body.data async for body in bodies]
    assert rest[-1].endswith(b"data: [DONE]\n\n")
    await stopping


async def test_a_stopping_server_answers_the_calls_of_callers_that_notice_late(running: Running) -> None:
    """The health checks of a busy Envoy are late. gRPC cancels the calls that arrive after the server has stopped."""
    running.backend.answer = lambda _: completion("a")
    stopping = asyncio.create_task(running.server.stop(Shutdown(grace=30)))
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        await running.chat.CreateChatCompletion(chat_request(), metadata=running.metadata)
    assert not stopping.done()
    await stopping


async def test_a_replaced_server_ends_streams_of_health(running: Running) -> None:
    """The streams end without NOT_SERVING, so that clients watch again; they do not keep the server alive."""
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=WATCHED))
    assert health_pb2.HealthCheckResponse.SERVING == (await watch.read()).status
    await running.server.stop(Shutdown(grace=3600, replaced=True))
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await watch.read()
    assert grpc.StatusCode.UNAVAILABLE == ended.value.code()


async def test_a_leaving_server_serves_on_until_no_call_runs(running: Running) -> None:
    """Callers get NOT_SERVING, Envoy gets SERVING, calls succeed, and the last one ends before the report."""
    idle, gate = asyncio.Event(), asyncio.Event()
    running.backend.answer = lambda _: [chunks("a")[0], gate, *chunks("b")]
    stream = aiter(running.chat.StreamChatCompletion(chat_request(), metadata=running.metadata))
    await anext(stream)
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=WATCHED))
    assert health_pb2.HealthCheckResponse.SERVING == (await watch.read()).status
    shutdown = Shutdown(grace=0, on_idle=idle.set)
    serving = asyncio.create_task(running.server.run(shutdown))
    shutdown.leave.set()
    shutdown.report_idle.set()
    assert health_pb2.HealthCheckResponse.NOT_SERVING == (await watch.read()).status
    whole = await health.Check(health_pb2.HealthCheckRequest())
    assert health_pb2.HealthCheckResponse.SERVING == whole.status
    running.backend.answer = lambda _: completion("Hello")
    await running.chat.CreateChatCompletion(chat_request(), metadata=running.metadata)
    assert not idle.is_set()
    gate.set()
    await _rest(stream)
    await idle.wait()
    shutdown.stop.set()
    await serving


async def test_calls_beyond_the_grace_period_end_with_an_error(running: Running) -> None:
    """After the grace period events end with an error event, typed streams and unary calls with the status."""
    running.backend.answer = lambda call: (
        [chunks("a")[0], asyncio.Event()] if call.request.HasField("stream_options") else asyncio.Event()
    )
    streaming = chat_request(stream_options={})
    events = aiter(running.chat.StreamChatCompletionEvents(streaming, metadata=running.metadata))
    typed = aiter(running.chat.StreamChatCompletion(streaming, metadata=running.metadata))
    non_streaming = running.chat.CreateChatCompletion(chat_request(), metadata=running.metadata)
    await anext(events)
    await anext(typed)
    unary_call = asyncio.ensure_future(non_streaming)
    while len(running.backend.calls) < 3:
        await asyncio.sleep(0.01)
    await running.server.stop(Shutdown(grace=0.1))
    found, is_done = sse.read(b"".join([body.data async for body in events]))
    assert ("shutting_down", False) == (found[-1]["error"]["code"], is_done)
    for call in (_rest(typed), unary_call):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert (grpc.StatusCode.UNAVAILABLE, "The service is shutting down; try again") == (
            caught.value.code(),
            caught.value.details(),
        )


async def test_cut_off_turns_are_stored_as_shutdown(running: Running) -> None:
    """Turns that are cut off after the grace period are stored as incomplete with `shutdown`."""
    first = await running.chat.CreateChatCompletion(chat_request(), metadata=running.metadata)
    running.backend.answer = lambda _: [chunks("par")[0], asyncio.Event()]
    call = running.chat.StreamChatCompletion(
        chat_request("two", chatSessionId=first.session_id), metadata=running.metadata
    )
    for _ in range(2):
        await call.read()
    await running.server.stop(Shutdown(grace=0.1))
    await running.turns.close()
    kept, _ = await running.store.list_messages("ada", first.session_id, page_size=10, page_token=None)
    assert [("two", "shutdown"), ("par", "shutdown")] == [
        (message.message.content.string_value, message.reason) for message in kept[2:]
    ]


async def _rest(call: Any) -> list[Any]:
    return [chunk async for chunk in call]


async def test_slow_readers_do_not_block_others(running: Running) -> None:
    """An unread stream does not block the worker and ends with its caller."""
    running.backend.answer = lambda call: LONG_STREAM if call.request.user else chunks("quick")
    slow = running.chat.StreamChatCompletion(chat_request(user="slow"), metadata=running.metadata)
    await slow.read()
    quick = running.chat.StreamChatCompletion(chat_request(), metadata=running.metadata)
    assert "quick" == "".join([c.choices[0].delta.content async for c in quick if c.choices])
    slow.cancel()
    await asyncio.wait_for(running.backend.closed.wait(), 60)


async def test_an_unread_stream_releases_its_session(tmp_path: Path, log_file: Path) -> None:
    """A stream that stays unread too long is cancelled, typed or in events; backend and session are released."""
    async with (
        serving(tmp_path, stalled_seconds=0.5) as worker,
        grpc.aio.insecure_channel(worker.address) as channel,
    ):
        running = Running(worker, channel)
        running.backend.answer = lambda _: LONG_STREAM
        for stream in (running.chat.StreamChatCompletion, running.chat.StreamChatCompletionEvents):
            running.backend.closed.clear()
            call = stream(chat_request(), metadata=running.metadata)
            await call.read()
            await asyncio.wait_for(running.backend.closed.wait(), 60)
            await running.turns.close()
            [newest, *_], _ = await running.store.list_sessions("ada", SessionFilter(), page_size=10, page_token=None)
            kept: list[Any] = []
            token = None
            while token is not None or not kept:  # the answer is larger than a page with another message may be
                page, token = await running.store.list_messages("ada", newest.id, page_size=10, page_token=token)
                kept += page
            assert ["cancelled", "cancelled"] == [message.reason for message in kept]
            call.cancel()
