"""The store away, seen from outside: what callers and health are told through the edge, and that all comes back."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.postgres import serving
from tests.processes import Parley, started, until
from tests.upstream import ScriptedUpstream

BODY = {"messages": [{"role": "user", "content": "Hi"}]}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Away(NamedTuple):
    """A running Parley, and how its store is taken away and brought back."""

    parley: Parley
    take: Callable[[], object]
    bring: Callable[[], object]


def _on_sqlite(config: Path, folder: Path) -> Iterator[Away]:
    """Its file is moved away."""
    with started("--config", str(config), "--workers", "2", folder=folder) as parley:
        file = folder / "state" / "parley.db"
        away = file.with_name("away.db")
        yield Away(parley, lambda: file.rename(away), lambda: away.rename(file))


def _on_postgres(config: Path, folder: Path) -> Iterator[Away]:
    """Its server is killed."""
    with serving() as server:
        config.write_text(f"{config.read_text()}store: {{kind: postgres, url: '{server.empty()}'}}\n")
        with started("--config", str(config), "--workers", "2", folder=folder) as parley:
            yield Away(parley, server.kill, server.start)


@pytest.fixture(params=[_on_sqlite, _on_postgres], ids=["sqlite", "postgres"])
def away(request: pytest.FixtureRequest, scripted_config: Path, tmp_path: Path) -> Iterator[Away]:
    """A Parley of the test's own, whose store can be taken away."""
    yield from request.param(scripted_config, tmp_path)


def _health(parley: Parley, service: str) -> int:
    with grpc.insecure_channel(parley.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=service)).status  # type: ignore[no-any-return]


def _ask(parley: Parley, key: str) -> tuple[int, dict[str, str], Any, float]:
    begun = time.monotonic()
    with parley.connection() as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(BODY), parley.headers(key))
        response = connection.getresponse()
        body = json.loads(response.read())
    return response.status, {n.lower(): v for n, v in response.getheaders()}, body, time.monotonic() - begun


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
    away.bring()
    until(lambda: SERVING == _health(parley, "parley.v1.ChatCompletions"), "health says that it is back")
    assert "Hello there." == parley.ask("Hi")
    assert 401 == _ask(parley, "sk-wrong")[0]
    parley.log_says("the store is back")
