"""`parley health`: what it says about a listener that does not serve."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2_grpc

from parley.cli.health import health as command
from parley.supervisor.errors import CommandError


@pytest.fixture(params=[True, False], ids=["with health", "without"])
def listener(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """A gRPC server, and whether it has the health service."""
    server = grpc.server(ThreadPoolExecutor(1))
    if request.param:
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", request.param
    server.stop(None)


def test_a_listener_without_health_or_service(listener: tuple[str, bool]) -> None:
    """The message says what is missing, and what to name instead."""
    address, has_health = listener
    wanted = "leave --service out" if has_health else "it has no health checks of gRPC: name the gRPC listener"
    with pytest.raises(CommandError, match=wanted):
        command(address, service="unknown.Service")


def test_nothing_listens() -> None:
    """A listener that is absent may also be one with TLS, whose page can be asked."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(CommandError, match="if its listeners use TLS, name a URL such as https://"):
        command(address)
