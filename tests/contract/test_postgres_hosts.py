"""A URL with several servers, of which one is the primary, as Patroni keeps them."""

import socket
from collections.abc import Iterator

import pytest

from parley.core.errors import StoreUnavailable
from parley.stores.postgres import PostgresStore
from tests.contract.stores import converse
from tests.postgres import Server
from tests.processes import reserved_port


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that never answers, like a machine that is cut off."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("down", ["silent", "closed"])
async def test_a_server_that_is_down(postgres_url: str, postgres_server: Server, silent: int, down: str) -> None:
    """The store uses the next server, whichever comes first in the URL."""
    port = silent if down == "silent" else reserved_port()
    for ports in ((port, postgres_server.port), (postgres_server.port, port)):
        servers = ",".join(f"127.0.0.1:{number}" for number in ports)
        store = await PostgresStore.open(postgres_url.replace(f"127.0.0.1:{postgres_server.port}", servers))
        await converse(store, f"s{ports[0]}", "q", "a", new=True)
        await store.close()


async def test_no_server_is_available(postgres_url: str, postgres_server: Server) -> None:
    """The error names the servers and the reason."""
    servers = ",".join(f"127.0.0.1:{reserved_port()}" for _ in range(2))
    with pytest.raises(StoreUnavailable) as failed:
        await PostgresStore.open(postgres_url.replace(f"127.0.0.1:{postgres_server.port}", servers))
    assert servers in str(failed.value.cause)
    assert "Connect call failed" in str(failed.value.cause)


async def test_the_kind_of_server(postgres_url: str, postgres_server: Server) -> None:
    """The parameter `target_session_attrs` of the URL decides which servers are used; by default the primary."""
    servers = f"127.0.0.1:{reserved_port()},127.0.0.1:{postgres_server.port}"
    url = postgres_url.replace(f"127.0.0.1:{postgres_server.port}", servers)
    with pytest.raises(StoreUnavailable):
        await PostgresStore.open(f"{url}?target_session_attrs=standby")
    store = await PostgresStore.open(f"{url}?target_session_attrs=any")
    await store.close()
