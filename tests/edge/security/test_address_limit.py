"""The limit of connections of one client address, which the supervisor counts and Envoy enforces."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest
import pytest_asyncio

from parley.supervisor.address_limit import AddressLimit, count_connections
from parley.supervisor.addresses import Address
from parley.supervisor.edge_settings import EdgeSettings
from tests.edge import conftest
from tests.edge.conftest import Edge, until
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

MOST = 6
STRANGER, OTHER = "127.0.0.2", "127.0.0.1"
REQUEST = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def listeners(edge: Edge) -> tuple[Address, Address]:
    """Returns the addresses of both listeners."""
    return Address("127.0.0.1", edge.port), Address("127.0.0.1", int(edge.grpc.rpartition(":")[2]))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def edge(the_worker: tuple[Worker, Path], run_dir: Path) -> AsyncIterator[Edge]:
    """One Envoy that follows a limit of six connections."""
    async with conftest.started(run_dir, [the_worker[1]], EdgeSettings(max_connections_per_address=MOST)) as running:
        limit = asyncio.create_task(AddressLimit(MOST, run_dir, lambda: listeners(running)).follow())
        yield running
        limit.cancel()


async def connect(edge: Edge, address: str) -> Stream:
    """Opens a connection to the REST listener from an address."""
    return await asyncio.open_connection("127.0.0.1", edge.port, local_addr=(address, 0))


async def is_served(stream: Stream) -> bool:
    """Makes a call on the connection; returns whether it is answered."""
    reader, writer = stream
    writer.write(REQUEST)
    with suppress(OSError, asyncio.IncompleteReadError):
        return b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    return False


async def is_admitted(edge: Edge, address: str) -> bool:
    """Returns whether a new connection from the address is served."""
    stream = await connect(edge, address)
    served = await is_served(stream)
    stream[1].close()
    return served


async def test_an_address_with_too_many_connections_gets_no_more(edge: Edge, capfd: pytest.CaptureFixture[str]) -> None:
    """New connections of an address at its limit are refused; its open ones and those of others are served."""
    other = await connect(edge, OTHER)
    held = [await connect(edge, STRANGER) for _ in range(MOST)]
    assert [True] * MOST == [await is_served(stream) for stream in held]  # at once: Envoy decides at the first byte

    async def is_refused() -> bool:
        return not await is_admitted(edge, STRANGER)

    await until(is_refused)
    assert [True] * MOST == [await is_served(stream) for stream in held]
    assert await is_served(other)
    assert await is_admitted(edge, OTHER)
    assert f"parley: {STRANGER}/32 has {MOST} connections; further ones are refused" in capfd.readouterr().err
    for _, writer in held[1:]:
        writer.close()
    await until(lambda: is_admitted(edge, STRANGER))
    assert await is_served(held[0])


async def test_connections_are_counted_by_client(edge: Edge) -> None:
    """IPv4 counts by address and IPv6 by network of 64 bits; other ports and listening sockets do not count."""
    streams = [await connect(edge, address) for address in ("127.0.0.3", "127.0.0.3", "127.0.0.4")]
    found = count_connections(listeners(edge))
    assert {"127.0.0.3": 2, "127.0.0.4": 1} == {name: found[ip_network(name)] for name in ("127.0.0.3", "127.0.0.4")}
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        address = Address("::1", server.getsockname()[1])
        with socket.create_connection(address):
            assert Counter({ip_network("::/64"): 1}) == count_connections([address])
    for _, writer in streams:
        writer.close()
