"""The channels of parley-client: TLS, load balancing, health checks, tracing."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from opentelemetry import propagate
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

import parley_client
from parley_client import AsyncClient, Client, Retry, channel
from parley_client.otel import Tracing
from tests.contract.certificates import CERTIFICATE
from tests.processes import PATIENCE
from tests.rpc.client.failing_server import FailingServer
from tests.rpc.conftest import serving

LOCAL = ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/parley.sock"]
REMOTE = ["parley.internal:50051", "dns:///127.0.0.1:1", "127.0.0.1.example.com:1", "10.0.0.1:1"]


def test_tls_is_used_unless_the_address_is_local() -> None:
    """Without `tls` a key is never sent in the clear to another machine."""
    assert [False] * 4 == [channel.credentials(target, None) is not None for target in LOCAL]
    assert [True] * 4 == [channel.credentials(target, None) is not None for target in REMOTE]
    assert channel.credentials(LOCAL[0], tls=True) is not None
    assert channel.credentials(REMOTE[0], tls=False) is None


def test_a_call_with_certificates_of_ones_own() -> None:
    """Credentials of gRPC are used as they are."""
    key, certificate = CERTIFICATE.partition("-----BEGIN CERTIFICATE-----")[::2]
    chain = f"-----BEGIN CERTIFICATE-----{certificate}".encode()
    failing = FailingServer()
    server = grpc.server(ThreadPoolExecutor(1), handlers=[failing])
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key.encode(), chain)]))
    server.start()
    with Client(f"localhost:{port}", key="sk-key", tls=grpc.ssl_channel_credentials(chain)) as client:
        assert "answer" == client.chat.create("Hi").raw.id
    strangers = Client(f"localhost:{port}", key="sk-key", tls=True, retry=Retry(attempts=1))
    with strangers as client, pytest.raises(parley_client.UnavailableError):
        client.chat.create("Hi")
    server.stop(0)
    failing.stop()


async def test_calls_are_spread_over_all_addresses(tmp_path: Path) -> None:
    """With the default service config two servers share the calls of one client."""
    async with AsyncExitStack() as running:
        workers = [await running.enter_async_context(serving(tmp_path)) for _ in range(2)]  # with one store
        target = f"ipv4:{','.join(worker.address for worker in workers)}"
        async with AsyncClient(target, key=workers[0].keys["ada"], tls=False) as client:
            async with asyncio.timeout(PATIENCE):
                while not all(worker.backend.calls for worker in workers):
                    await client.chat.create("Hi", model="stateless")


def test_a_call_is_a_span() -> None:
    """The span of a call has the names of OpenTelemetry's conventions, and is the parent of the service's."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    failing = FailingServer()
    with Client(failing.address, key="sk-key", observer=Tracing(provider)) as client:
        client.chat.create("Hi")
        failing.failures = [(grpc.StatusCode.NOT_FOUND, {})]
        with pytest.raises(parley_client.NotFoundError):
            client.chat.create("Hi")
    failing.stop()
    good, bad = exporter.get_finished_spans()
    assert ("parley.v1.ChatCompletions/CreateChatCompletion", SpanKind.CLIENT) == (good.name, good.kind)
    assert {
        "rpc.system": "grpc",
        "rpc.service": "parley.v1.ChatCompletions",
        "rpc.method": "CreateChatCompletion",
        "rpc.grpc.status_code": 0,
    } == good.attributes
    assert (5, "NOT_FOUND", False) == (
        (bad.attributes or {})["rpc.grpc.status_code"],
        (bad.attributes or {})["error.type"],
        bad.status.is_ok,
    )
    assert good.context is not None
    assert f"{good.context.trace_id:032x}-{good.context.span_id:016x}" in failing.calls[0]["traceparent"]


def test_trace_contexts_with_names_in_upper_case(server: FailingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A propagator for HTTP may have names in upper case, which gRPC does not allow."""
    monkeypatch.setattr(propagate, "inject", lambda carrier, _: carrier.update({"X-Amzn-Trace-Id": "Root=1"}))
    with Client(server.address, key="sk-key", observer=Tracing(TracerProvider())) as client:
        client.chat.create("Hi")
    assert "Root=1" == server.calls[0]["x-amzn-trace-id"]
