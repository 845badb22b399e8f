"""The store away, seen from outside: what callers and health are told through the edge, and that all comes back."""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.postgres import Server, serving
from tests.processes import ANY_PORTS, Parley, launch, reserved_port, run, started, until, wait_ready
from tests.upstream import ScriptedUpstream

BODY = {"messages": [{"role": "user", "content": "Hi"}]}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Away(NamedTuple):
    """A running Parley, and how its store is taken away and brought back."""

    parley: Parley
    take: Callable[[], object]
    bring: Callable[[], object]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One PostgreSQL server; each test empties its database and leaves it running."""
    with serving() as running:
        yield running


def _on_sqlite(config: Path, folder: Path, _: pytest.FixtureRequest) -> Iterator[Away]:
    """Its file is moved away."""
    with started("--config", str(config), "--workers", "2", folder=folder) as parley:
        file = folder / "state" / "parley.db"
        away = file.with_name("away.db")
        yield Away(parley, lambda: file.rename(away), lambda: away.rename(file))


def _on_postgres(config: Path, folder: Path, request: pytest.FixtureRequest) -> Iterator[Away]:
    """Its server is killed."""
    server: Server = request.getfixturevalue("server")
    config.write_text(f"{config.read_text()}store: {{kind: postgres, url: '{server.empty()}'}}\n")
    with started("--config", str(config), "--workers", "2", folder=folder) as parley:
        yield Away(parley, server.kill, server.start)


@pytest.fixture(params=[_on_sqlite, _on_postgres], ids=["sqlite", "postgres"])
def away(request: pytest.FixtureRequest, scripted_config: Path, tmp_path: Path) -> Iterator[Away]:
    """A Parley of the test's own, whose store can be taken away."""
    yield from request.param(scripted_config, tmp_path, request)


def _health(parley: Parley, service: str) -> int:
    with grpc.insecure_channel(parley.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service)).status  # type: ignore[no-any-return]


def _ask(parley: Parley, key: str) -> tuple[int, dict[str, str], Any, float]:
    started = time.monotonic()
    with parley.connection() as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(BODY), parley.headers(key))
        response = connection.getresponse()
        body = json.loads(response.read())
    return response.status, {n.lower(): v for n, v in response.getheaders()}, body, time.monotonic() - started


def test_callers_and_health_are_told_while_the_store_is_away(away: Away, upstream: ScriptedUpstream) -> None:
    """503 with its reason at once, for good keys and wrong ones; NOT_SERVING; and then everything as before."""
    parley = away.parley
    assert "Hello there." == parley.ask("Hi")
    away.take()
    until(lambda: NOT_SERVING == _health(parley, "parley.v1.ChatCompletions"), "health says so")
    for key in (parley.key, "sk-wrong"):
        status, headers, body, seconds = _ask(parley, key)
        assert (503, "store_unavailable") == (status, body["error"]["code"]), body
        assert ("1", "true") == (headers["retry-after"], headers["x-should-retry"])
        assert seconds < 5
    assert SERVING == _health(parley, "")
    until(lambda: 503 == _get(parley, "/readyz"), "the edge says that turns cannot be stored")
    assert [200, 200] == [_get(parley, "/livez"), _get(parley, "/healthz")]
    away.bring()
    until(lambda: SERVING == _health(parley, "parley.v1.ChatCompletions"), "health says that it is back")
    until(lambda: 200 == _get(parley, "/readyz"), "the edge says that turns can be stored again")
    assert "Hello there." == parley.ask("Hi")
    assert 401 == _ask(parley, "sk-wrong")[0]
    parley.log_says("the store is available again")


def test_stateless_calls_go_on_where_turns_cannot_be_stored(
    scripted_config: Path, upstream: ScriptedUpstream, server: Server, tmp_path: Path
) -> None:
    """Reads work, writes hang: turns get 503 at once and readiness says so; calls that need no store are answered."""
    scripted_config.write_text(f"{scripted_config.read_text()}store: {{kind: postgres, url: '{server.empty()}'}}\n")
    with started("--config", str(scripted_config), "--workers", "2", folder=tmp_path) as parley:
        server.sql("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
        server.sql("SELECT pg_reload_conf()")
        until(lambda: 503 == _get(parley, "/readyz"), "the edge says that turns cannot be stored")
        times = []
        for _ in range(8):
            assert "Hello there." == parley.ask("Hi", store=False)
            status, _, body, seconds = _ask(parley, parley.key)
            assert (503, "store_unavailable") == (status, body["error"]["code"])
            times.append(seconds)
        assert statistics.median(times) < 1
        assert max(times) < 5  # as long as a call that waits for the database
        server.sql("ALTER SYSTEM RESET synchronous_standby_names")
        server.sql("SELECT pg_reload_conf()")
        until(lambda: 200 == _get(parley, "/readyz"), "the edge says that turns can be stored again")
        assert "Hello there." == parley.ask("Hi")


def test_a_database_that_comes_later(
    scripted_config: Path, upstream: ScriptedUpstream, server: Server, tmp_path: Path
) -> None:
    """`parley up` says that it waits; calls get 503 meanwhile; it is ready, with its tables made, once it is there."""
    scripted_config.write_text(f"{scripted_config.read_text()}store: {{kind: postgres, url: '{server.empty()}'}}\n")
    server.kill()
    http = f"127.0.0.1:{reserved_port()}"
    parley = launch("--config", str(scripted_config), "--http", http, folder=tmp_path)
    try:
        parley.http = f"http://{http}"
        until(lambda: "parley: the store is unavailable" in parley.log, "it says so")
        until(lambda: 503 == _status(parley), "calls are refused")
        assert not (tmp_path / "ready.json").exists()
        server.start()
        wait_ready(parley)
        assert "parley: the store is available" in parley.log
        until(lambda: 200 == _ask(parley, parley.key)[0], "calls are answered")
    finally:
        parley.end()


def test_a_stop_while_it_waits(scripted_config: Path, tmp_path: Path) -> None:
    """SIGTERM ends the wait, and so does its own end; `0` is no wait at all."""
    nowhere = f"postgresql://parley@127.0.0.1:{reserved_port()}/parley"
    scripted_config.write_text(f"{scripted_config.read_text()}store: {{kind: postgres, url: '{nowhere}'}}\n")
    parley = launch("--config", str(scripted_config), folder=tmp_path)
    until(lambda: "parley: the store is unavailable" in parley.log, "it reports the outage")
    until(lambda: "Starting the workers" in parley.log, "the workers start")
    assert 0 == parley.stop()
    options = ("--config", str(scripted_config), "--state-dir", str(tmp_path / "state"))
    for timeouts in ("1s", "0"):
        ended = run("up", *ANY_PORTS, *options, "--wait-for-store", timeouts)
        assert 1 == ended.returncode
        assert "PostgreSQL at 127.0.0.1" in ended.stderr


def test_a_database_that_refuses(scripted_config: Path, server: Server, tmp_path: Path) -> None:
    """A missing database or a wrong password is an error at once: it does not pass by waiting."""
    scripted_config.write_text(
        f"{scripted_config.read_text()}store: {{kind: postgres, url: '{server.url('nowhere')}'}}\n"
    )
    ended = run("up", *ANY_PORTS, "--config", str(scripted_config), "--state-dir", str(tmp_path / "state"))
    assert 1 == ended.returncode
    assert 'database "nowhere" does not exist' in ended.stderr
    assert "the store is unavailable" not in ended.stderr


def _get(parley: Parley, path: str) -> int:
    with parley.connection() as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status


def _status(parley: Parley) -> int:
    """Asks with any key; 0 while nothing listens yet."""
    try:
        return _ask(parley, "sk-any")[0]
    except OSError:
        return 0
