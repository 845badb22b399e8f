"""The signs of life that a worker reports to its supervisor."""

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from parley.rpc import liveness
from parley.rpc.health import Health
from parley.rpc.liveness import Liveness


async def test_health_checks_save_the_calls_of_the_worker_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy's checks are signs of life; without them, the worker calls its own server, which must answer."""
    monkeypatch.setattr(liveness, "_INTERVAL_SECONDS", 0.02)
    own_calls, reports = 0, asyncio.Semaphore(0)
    alive = Liveness(reports.release)

    def count() -> None:
        nonlocal own_calls
        own_calls += 1

    server, health = grpc.aio.server(), Health(count)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    server.add_insecure_port(f"unix:{tmp_path}/own.sock")
    await server.start()
    checking = asyncio.create_task(alive.check(tmp_path / "own.sock"))
    async with asyncio.timeout(60):
        await reports.acquire()
        assert 1 == own_calls
        envoys = Health(alive.record_answer)
        for _ in range(5):
            status = await envoys.Check(health_pb2.HealthCheckRequest(), None)  # type: ignore[arg-type]
            assert health_pb2.HealthCheckResponse.SERVING == status.status
            await reports.acquire()
        assert 1 == own_calls
        await reports.acquire()
        assert 2 == own_calls
        await server.stop(None)
    checking.cancel()


async def test_a_server_that_answers_no_call_is_no_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that accepts and never answers, like a gRPC that hangs, is not reported as alive."""
    monkeypatch.setattr(liveness, "_TIMEOUT_SECONDS", 0.02)
    reports: list[bool] = []
    silent = await asyncio.start_unix_server(lambda *_: asyncio.sleep(60), tmp_path / "own.sock")
    checking = asyncio.create_task(Liveness(lambda: reports.append(True)).check(tmp_path / "own.sock"))
    await asyncio.sleep(0.2)
    assert [] == reports
    checking.cancel()
    silent.close()
