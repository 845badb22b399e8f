"""The store away, seen from outside: what callers and health are told through the edge, and that all comes back."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.processes import Parley, started, until
from tests.upstream import ScriptedUpstream

BODY = {"messages": [{"role": "user", "content": "Hi"}]}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def parley(scripted_config: Path, tmp_path: Path) -> Iterator[Parley]:
    """A Parley of the test's own, whose database can be moved away."""
    with started("--config", str(scripted_config), folder=tmp_path) as running:
        yield running


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


def test_callers_and_health_are_told_while_the_store_is_away(parley: Parley, upstream: ScriptedUpstream) -> None:
    """503 with its reason at once, for good keys and wrong ones; NOT_SERVING; and then everything as before."""
    assert "Hello there." == parley.ask("Hi")
    [file] = parley.folder.rglob("parley.db")
    away = file.with_name("away.db")
    file.rename(away)
    until(lambda: NOT_SERVING == _health(parley, "parley.v1.ChatCompletions"), "health says so")
    for key in (parley.key, "sk-wrong"):
        status, headers, body, seconds = _ask(parley, key)
        assert (503, "store_unavailable") == (status, body["error"]["code"]), body
        assert ("1", "true") == (headers["retry-after"], headers["x-should-retry"])
        assert seconds < 5
    assert SERVING == _health(parley, "")
    away.rename(file)
    until(lambda: SERVING == _health(parley, "parley.v1.ChatCompletions"), "health says that it is back")
    assert "Hello there." == parley.ask("Hi")
    assert 401 == _ask(parley, "sk-wrong")[0]
    parley.log_says("the store is back")
