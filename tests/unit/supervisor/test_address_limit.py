"""When the supervisor reads the kernel's list of connections."""

import asyncio
import math
import socket
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from parley.supervisor import address_limit
from parley.supervisor.address_limit import AddressLimit, count_sockets

MOST = 6


def test_connections_of_both_families_are_in_the_number_of_sockets() -> None:
    """So that no address can have reached the limit with a smaller number."""
    with ExitStack() as open_servers:
        servers = [open_servers.enter_context(socket.create_server(("127.0.0.1", 0)))]
        with suppress(OSError):  # a container may have no IPv6
            servers.append(open_servers.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6)))
        addresses = [server.getsockname()[:2] for server in servers for _ in range(100)]
        held = [socket.create_connection(address) for address in addresses]
        assert 2 * len(held) < count_sockets() < math.inf
        for connection in held:
            connection.close()


def test_a_kernel_that_counts_no_sockets_has_the_list_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the number, or with a 0 of a sandbox that only has the file, any address may have reached the limit."""
    empty = tmp_path / "sockstat"
    empty.write_text("sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\n", encoding="utf-8")
    for file in (empty, tmp_path / "missing"):
        monkeypatch.setattr(address_limit, "_SOCKET_COUNTS", (file,))
        assert math.inf == count_sockets()


async def test_the_list_is_read_only_when_an_address_may_have_reached_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read once at the start, and then while there are as many sockets as the limit."""
    lists, sockets = 0, MOST - 1

    def count_connections(_: object) -> Counter[address_limit.Network]:
        nonlocal lists
        lists += 1
        return Counter()

    monkeypatch.setattr(address_limit, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(address_limit, "count_connections", count_connections)
    monkeypatch.setattr(address_limit, "count_sockets", lambda: sockets)
    task = asyncio.create_task(AddressLimit(MOST, tmp_path, tuple).follow())
    await asyncio.sleep(0.1)
    assert 1 == lists
    sockets = MOST
    async with asyncio.timeout(60):
        while lists < 3:
            await asyncio.sleep(0.001)
    task.cancel()
