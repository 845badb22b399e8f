"""The limit of a request body, as the operator configures it."""

import json
from pathlib import Path

import aiohttp
import pytest

from parley.supervisor.edge_settings import EdgeSettings
from tests.edge.conftest import AUTHORIZATION, started
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
MIB = 2**20


def sized(size: int) -> bytes:
    """Returns a request body of exactly this many bytes."""
    frame = json.dumps({"model": "m", "messages": [{"role": "user", "content": ""}]}).encode()
    return frame[:-4] + b"x" * (size - len(frame)) + frame[-4:]


async def tried(run_dir: Path, worker_socket: Path, limit: int, sizes: list[int]) -> list[int]:
    """Sends bodies of these sizes through an edge with this limit, with a length and chunked; returns the statuses."""
    folder = run_dir / f"size{limit}"
    folder.mkdir()
    statuses = []
    async with (
        started(folder, [worker_socket], EdgeSettings(max_body=limit)) as edge,
        aiohttp.ClientSession(edge.http, headers=AUTHORIZATION) as session,
    ):
        for size in sizes:
            async with session.post(CHAT, data=sized(size), headers=JSON) as response:
                statuses.append(response.status)
                text = await response.text()
            if response.status == 413:
                assert f"larger than {limit // MIB} MiB" in text
    return statuses


@pytest.mark.parametrize("limit", [1 * MIB, 30 * MIB])
async def test_the_limit_is_as_it_was_set(run_dir: Path, the_worker: tuple[Worker, Path], limit: int) -> None:
    """A body of the largest size arrives, even at the highest limit; one byte more is a 413."""
    worker, socket = the_worker
    worker.reset()
    assert [200, 413] == await tried(run_dir, socket, limit, [limit, limit + 1])
    assert ["CreateChatCompletionJson"] == worker.calls
    assert limit - 1000 < len(worker.request.messages[0].content.string_value)


async def test_a_body_too_large_for_a_worker_is_a_413(run_dir: Path, the_worker: tuple[Worker, Path]) -> None:
    """A body that the worker's library rejects is a 413 without retries: short numbers are larger in protobuf."""
    worker, socket = the_worker
    worker.reset()
    folder = run_dir / "heap"
    folder.mkdir()
    numbers, text = "1," * 1_500_000 + "1", "x" * 24 * MIB
    body = f'{{"model": "m", "stop": [{numbers}], "messages": [{{"role": "user", "content": "{text}"}}]}}'
    async with (
        started(folder, [socket], EdgeSettings(max_heap=1024 * MIB, max_body=30 * MIB)) as edge,
        aiohttp.ClientSession(edge.http, headers=AUTHORIZATION) as session,
        session.post(CHAT, data=body, headers=JSON) as response,
    ):
        assert 413 == response.status
        assert "false" == response.headers["x-should-retry"]
        error = (await response.json())["error"]
    assert ("The request is too large", "request_too_large") == (error["message"], error["code"])
    assert [] == worker.calls
