"""An unavailable store as seen through the edge: errors, health and recovery."""

import json
import re
import statistics
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.postgres import Server, serving
from tests.processes import ANY_PORTS, Parley, launch, reserved_port, run, started, until, wait_ready
from tests.upstream import ScriptedUpstream

BODY = {"messages": [{"role": "user", "content": "Hi"}]}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Outage(NamedTuple):
    """A running Parley whose store can be made unavailable and available again."""

    parley: Parley
    interrupt: Callable[[], object]
    restore: Callable[[], object]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One PostgreSQL server; each test empties its database and leaves it running."""
    with serving() as running:
        yield running


def _store(server: Server) -> str:
    """Returns the configuration of an empty store on a server, for which calls wait a short time."""
    return f"store: {{kind: postgres, url: '{server.empty()}', wait: 500ms}}"


def _on_sqlite(config: Path, folder: Path, _: pytest.FixtureRequest) -> Iterator[Outage]:
    """Makes the store unavailable by moving its file."""
    with started("--config", str(config), "--workers", "2", folder=folder) as parley:
        file = folder / "state" / "parley.db"
        moved = file.with_name("outage.db")
        yield Outage(parley, lambda: file.rename(moved), lambda: moved.rename(file))


def _on_postgres(config: Path, folder: Path, request: pytest.FixtureRequest) -> Iterator[Outage]:
    """Makes the store unavailable by killing its server."""
    server: Server = request.getfixturevalue("server")
    config.write_text(f"{config.read_text()}{_store(server)}\n")
    with started("--config", str(config), "--workers", "2", folder=folder) as parley:
        yield Outage(parley, server.kill, server.start)


@pytest.fixture(params=[_on_sqlite, _on_postgres], ids=["sqlite", "postgres"])
def store_outage(request: pytest.FixtureRequest, scripted_config: Path, tmp_path: Path) -> Iterator[Outage]:
    """A Parley for one test, whose store can be made unavailable."""
    yield from request.param(scripted_config, tmp_path, request)


def _health(parley: Parley, service: str) -> int:
    with grpc.insecure_channel(parley.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service)).status  # type: ignore[no-any-return]


def _checks(parley: Parley) -> tuple[int, list[str]]:
    """Returns the status and the lines of the private listener's checks."""
    connection = HTTPConnection(urlsplit(parley.metrics).netloc, timeout=60)
    try:
        connection.request("GET", "/readyz?verbose")
        response = connection.getresponse()
        return response.status, response.read().decode().splitlines()
    finally:
        connection.close()


def _post(parley: Parley, key: str) -> tuple[int, dict[str, str], Any, float]:
    started = time.monotonic()
    with parley.connection() as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(BODY), parley.headers(key))
        response = connection.getresponse()
        body = json.loads(response.read())
    return response.status, {n.lower(): v for n, v in response.getheaders()}, body, time.monotonic() - started


def _available(parley: Parley) -> list[str]:
    """Returns what the metrics of each worker say of the store."""
    return re.findall(r"^parley_store_available{.*} (.*)$", parley.scrape(), re.MULTILINE)


def test_calls_and_health_report_an_outage(store_outage: Outage, upstream: ScriptedUpstream) -> None:
    """Calls fail immediately with 503 and its reason for any key, health is NOT_SERVING, and all recover."""
    parley = store_outage.parley
    assert "Hello there." == parley.chat("Hi")
    store_outage.interrupt()
    until(lambda: NOT_SERVING == _health(parley, "parley.v1.ChatCompletions"), "health says so")
    for key in (parley.key, "sk-wrong"):
        status, headers, body, seconds = _post(parley, key)
        assert (503, "store_unavailable") == (status, body["error"]["code"]), body
        assert ("1", "true") == (headers["retry-after"], headers["x-should-retry"])
        assert seconds < 5
    assert SERVING == _health(parley, "")
    until(lambda: 503 == _get(parley, "/readyz"), "the edge says that turns cannot be stored")
    assert [200, 200] == [_get(parley, "/livez"), _get(parley, "/healthz")]
    assert 503 == _get(parley, "/readyz?verbose")
    status, lines = _checks(parley)
    assert (503, "not ready") == (status, lines[-1])
    assert {"[+] worker 1: accepts-calls", "[+] worker 2: models", "[+] envoy"} <= set(lines)
    assert {1, 2} == {number for number in (1, 2) for line in lines if f"[-] worker {number}: store: " in line}
    until(lambda: ["0.0", "0.0"] == _available(parley), "the metrics of both workers")
    store_outage.restore()
    until(lambda: SERVING == _health(parley, "parley.v1.ChatCompletions"), "health says that it is back")
    until(lambda: ["1.0", "1.0"] == _available(parley), "the metrics of both workers")
    until(lambda: 200 == _get(parley, "/readyz"), "the edge says that turns can be stored again")
    assert "Hello there." == parley.chat("Hi")
    assert 401 == _post(parley, "sk-wrong")[0]
    until(lambda: (200, "ready") == (_checks(parley)[0], _checks(parley)[1][-1]), "all checks pass")
    parley.wait_for_log("the store is available again")


def test_stateless_calls_continue_without_writes(
    scripted_config: Path, upstream: ScriptedUpstream, server: Server, tmp_path: Path
) -> None:
    """While writes hang, turns get 503 immediately and readiness fails; calls without a store are answered."""
    scripted_config.write_text(f"{scripted_config.read_text()}{_store(server)}\n")
    with started("--config", str(scripted_config), "--workers", "2", folder=tmp_path) as parley:
        server.sql("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
        server.sql("SELECT pg_reload_conf()")
        until(lambda: 503 == _get(parley, "/readyz"), "the edge says that turns cannot be stored")
        times = []
        for _ in range(8):
            assert "Hello there." == parley.chat("Hi", store=False)
            status, _, body, seconds = _post(parley, parley.key)
            assert (503, "store_unavailable") == (status, body["error"]["code"])
            times.append(seconds)
        assert statistics.median(times) < 1
        assert max(times) < 5  # the maximum wait of a call for the database
        server.sql("ALTER SYSTEM RESET synchronous_standby_names")
        server.sql("SELECT pg_reload_conf()")
        until(lambda: 200 == _get(parley, "/readyz"), "the edge says that turns can be stored again")
        assert "Hello there." == parley.chat("Hi")


def test_a_database_that_starts_later(
    scripted_config: Path, upstream: ScriptedUpstream, server: Server, tmp_path: Path
) -> None:
    """`parley up` reports that it waits, and calls get 503; after the database starts, it serves."""
    scripted_config.write_text(f"{scripted_config.read_text()}{_store(server)}\n")
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
        until(lambda: 200 == _post(parley, parley.key)[0], "calls are answered")
    finally:
        parley.end()


def test_a_stop_while_it_waits(scripted_config: Path, tmp_path: Path) -> None:
    """SIGTERM ends the wait, and so does its timeout; `0` does not wait."""
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


def test_a_database_that_rejects_the_connection(scripted_config: Path, server: Server, tmp_path: Path) -> None:
    """A missing database or a wrong password is an error without a wait, because waiting does not help."""
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
    """Makes a call with any key; returns its status, 0 without a connection."""
    try:
        return _post(parley, "sk-any")[0]
    except OSError:
        return 0
