"""Tests of the warning at start that a failover may lose turns, with a real receiver of the write-ahead log."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import structlog

from parley.core.errors import StoreUnavailable
from parley.stores.postgres import PostgresStore, upgrade
from tests.postgres import Server, serving
from tests.processes import until

SETTING = "synchronous_standby_names"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this module."""
    with serving("wal_level=logical") as running:
        yield running


async def _warnings(url: str, *, allow_unavailable: bool = True) -> list[str]:
    """Returns the warnings at the start of a store."""
    with suppress(StoreUnavailable):
        await upgrade(url)  # a worker, unlike a command, creates no tables
    with structlog.testing.capture_logs() as logs:
        store = await PostgresStore.open(url, allow_unavailable=allow_unavailable)
        await store.close()
    return [line["event"] for line in logs if line["log_level"] == "warning"]


@contextmanager
def _standby(server: Server, folder: Path, *options: str) -> Iterator[None]:
    """Streams the write-ahead log to a folder, as to a standby."""
    with server.receiving(folder, *options) as process:
        until(lambda: "1" == server.sql("SELECT count(*) FROM pg_stat_replication"), "the receiver")
        yield
        process.terminate()
        process.wait(30)
    until(lambda: "0" == server.sql("SELECT count(*) FROM pg_stat_replication"), "the receiver's end")


async def test_no_standby(server: Server) -> None:
    """Without a standby there is no warning."""
    assert [] == await _warnings(server.empty())


async def test_an_asynchronous_standby(server: Server, tmp_path: Path) -> None:
    """An asynchronous standby causes a warning that names the setting; a command logs none."""
    url = server.empty()
    with _standby(server, tmp_path):
        (warning,) = await _warnings(url)
        assert SETTING in warning
        assert [] == await _warnings(url, allow_unavailable=False)


async def test_without_privileges(server: Server, tmp_path: Path) -> None:
    """A user without the privilege to read the state of replication still gets the warning."""
    url = server.empty()
    await (await PostgresStore.open(url)).close()
    server.sql("DROP ROLE IF EXISTS plain")
    server.sql(
        "CREATE ROLE plain LOGIN; GRANT USAGE ON SCHEMA parley TO plain; "
        "GRANT ALL ON ALL TABLES IN SCHEMA parley TO plain",
        "parley",
    )
    with _standby(server, tmp_path):
        (warning,) = await _warnings(url.replace("postgres@", "plain@"))
        assert SETTING in warning
    server.sql("DROP OWNED BY plain; DROP ROLE plain", "parley")


async def test_a_synchronous_standby(server: Server, tmp_path: Path) -> None:
    """A synchronous standby causes no warning."""
    url = server.empty()
    with _standby(server, tmp_path, "--synchronous"):
        server.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        server.sql("SELECT pg_reload_conf()")
        until(lambda: "*" == server.sql("SHOW synchronous_standby_names"), "the setting")
        assert [] == await _warnings(url)
        server.sql("ALTER SYSTEM RESET synchronous_standby_names")
        server.sql("SELECT pg_reload_conf()")
        until(lambda: server.sql("SHOW synchronous_standby_names") == "", "the end of the setting")


async def test_an_unavailable_server() -> None:
    """A failure of the query causes no warning, and the store opens."""
    assert [] == await _warnings("postgresql://postgres@127.0.0.1:1/parley")
