"""The errors of the gRPC listener that do not come from the service: their status, reason, message and delay."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.message_pb2 import Message
from parley.v1.models_pb2 import ListModelsRequest
from parley.v1.models_pb2_grpc import ModelsStub
from tests.edge.conftest import Edge, channel_to, started
from tests.edge.test_workers import processes, subfolder
from tests.edge.worker import SILENT, Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 2**20
CLOSED = grpc.StatusCode.UNAVAILABLE
EXCEEDED = grpc.StatusCode.RESOURCE_EXHAUSTED


def read(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, str, int | None]:
    """Returns the status, the reason, the message, and the seconds until a retry; the details repeat the status."""
    trailers: dict[str, Any] = dict(error.trailing_metadata())
    rich = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (error.code().value[0], error.details()) == (rich.code, rich.message)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert rich.details[0].Unpack(info)
    assert "parley" == info.domain
    assert info.reason == trailers["parley-error-reason"]
    assert "parley-error-local" not in trailers
    seconds = rich.details[1].Unpack(retry) and retry.retry_delay.seconds if len(rich.details) > 1 else None
    assert trailers.get("retry-after") == (str(seconds) if seconds else None)
    assert trailers["grpc-retry-pushback-ms"] == (f"{seconds}000" if seconds else "-1")
    return error.code(), info.reason, error.details() or "", seconds


async def failure(target: str, metadata: list[tuple[str, str]] | None = None) -> Any:
    """Lists the models through a new connection, and returns its failure."""
    async with channel_to(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await ModelsStub(channel).ListModels(ListModelsRequest(), metadata=metadata or [])
    return read(failed.value)


async def test_without_a_worker_a_call_is_unavailable(run_dir: Path) -> None:
    """Without a worker a call fails as UNAVAILABLE before it has begun, with a delay of a second."""
    async with started(subfolder(run_dir, "grpcnone"), []) as edge:
        message = "No worker is available; the call did not begin, try again"
        assert (CLOSED, "SERVICE_UNAVAILABLE", message, 1) == await failure(edge.grpc)


async def test_a_worker_lost_before_its_answer_is_unavailable(run_dir: Path) -> None:
    """A call whose worker is killed fails as UNAVAILABLE; the message names the key that makes a retry safe."""
    async with AsyncExitStack() as stack:
        worker = (await stack.enter_async_context(processes(run_dir, "lost")))["lost"]
        edge = await stack.enter_async_context(started(subfolder(run_dir, "grpclost"), [run_dir / "lost.sock"]))
        channel = await stack.enter_async_context(channel_to(edge.grpc))
        call = ChatCompletionsStub(channel).CreateChatCompletion(CreateChatCompletionRequest(model=SILENT))
        pending = asyncio.ensure_future(call)
        assert worker.stdout
        assert SILENT.encode() + b"\n" == await worker.stdout.readline()
        worker.kill()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await pending
        message = (
            "The worker was lost before it answered; try again, with an `Idempotency-Key` if the call must not run"
        )
        assert (CLOSED, "WORKER_LOST", f"{message} twice", 1) == read(failed.value)


async def test_a_message_over_the_limit_names_the_limit(edge: Edge, worker: Worker) -> None:
    """A message of more than `--max-body` is RESOURCE_EXHAUSTED, as the body of a REST call is a 413."""
    async with channel_to(edge.grpc) as channel:
        ask = ChatCompletionsStub(channel).CreateChatCompletion
        await ask(_sized(8 * MIB - 1000))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await ask(_sized(8 * MIB))
    assert (EXCEEDED, "REQUEST_TOO_LARGE", "The request message is larger than 8 MiB", None) == read(failed.value)
    assert ["CreateChatCompletion"] == worker.calls


async def test_a_message_over_the_worker_s_limit_is_the_same_error(edge: Edge) -> None:
    """A compressed message that unpacks to more than the worker accepts has the same error."""
    compression = grpc.Compression.Gzip
    async with channel_to(edge.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await ChatCompletionsStub(channel).CreateChatCompletion(_sized(33 * MIB), compression=compression)
    assert (EXCEEDED, "REQUEST_TOO_LARGE", "The request message is larger than 8 MiB", None) == read(failed.value)


def _sized(size: int) -> CreateChatCompletionRequest:
    message = Message(role="user")
    message.content.string_value = "x" * size
    return CreateChatCompletionRequest(model="m", messages=[message])


@pytest.mark.parametrize("method", ["/parley.v1.Models/Nope", "/parley.v2.Models/ListModels", "/x.Y/Z"])
async def test_an_unknown_method_is_unimplemented(edge: Edge, method: str) -> None:
    """An unknown method of a known service, and an unknown service, are UNIMPLEMENTED with the same reason."""
    async with channel_to(edge.grpc) as channel:
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call(b"")
    message = "Unknown method; server reflection lists the methods of this service"
    assert (grpc.StatusCode.UNIMPLEMENTED, "UNKNOWN_METHOD", message, None) == read(failed.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([("x", "x" * 13_000)], "The request headers are larger than 12 KiB"),
        ([(f"x{number}", "x" * 50_000) for number in range(10)], "The request headers are larger than 12 KiB"),
        ([(f"x{number}", "1") for number in range(5_000)], "The request has more than 100 headers"),
    ],
)
async def test_large_metadata_names_the_limit(
    edge: Edge, worker: Worker, metadata: list[tuple[str, str]], message: str
) -> None:
    """Metadata over the limit is RESOURCE_EXHAUSTED with the limit, far beyond what Envoy itself allows by default."""
    assert (EXCEEDED, "HEADERS_TOO_LARGE", message, None) == await failure(edge.grpc, metadata)
    assert [] == worker.calls


async def test_a_stream_whose_worker_is_lost_is_reset(run_dir: Path) -> None:
    """A stream that has begun is reset, which gRPC libraries report as INTERNAL: HTTP/2 has no other word for it."""
    async with AsyncExitStack() as stack:
        worker = (await stack.enter_async_context(processes(run_dir, "cut")))["cut"]
        edge = await stack.enter_async_context(started(subfolder(run_dir, "grpccut"), [run_dir / "cut.sock"]))
        channel = await stack.enter_async_context(channel_to(edge.grpc))
        stub: Any = ChatCompletionsStub(channel)
        stream = stub.StreamChatCompletionEvents(CreateChatCompletionRequest(model="m"))
        assert b"data: 1\n\n" == (await stream.read()).data
        worker.kill()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stream.read()
        assert grpc.StatusCode.INTERNAL == failed.value.code()
        assert "RST_STREAM" in (failed.value.details() or "")


async def test_health_and_other_statuses_stay_as_they_are(edge: Edge, worker: Worker) -> None:
    """A status of gRPC's health service is not an error of Parley, and is left alone."""
    async with channel_to(edge.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await HealthStub(channel).Check(HealthCheckRequest(service="nope"))
    assert grpc.StatusCode.NOT_FOUND == failed.value.code()
    assert "grpc-status-details-bin" not in dict(failed.value.trailing_metadata())
