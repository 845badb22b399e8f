"""Calls of REST whose worker is killed before the body of its answer."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.edge.conftest import AUTHORIZATION, started
from tests.edge.test_workers import processes, subfolder
from tests.edge.worker import BEGUN, SILENT

pytestmark = pytest.mark.asyncio(loop_scope="session")

UNAVAILABLE = "The service is not available; try again later"
RICH = {"error": {"message": UNAVAILABLE, "type": "server_error", "param": None, "code": "service_unavailable"}}
FAILED = {"error": "Internal Server Error"}  # the document has no other error of the server
EXPECTED = {
    "/v1/chat/completions": (503, RICH),
    "/openpipe/api/v1/chat/completions": (503, RICH),
    "/fastapi/api/v1/chat/completions": (503, {"detail": UNAVAILABLE}),
    "/api/v1/chat/completions": (500, FAILED),
    "/upchatty/api/v1/chat/completions": (500, FAILED),
}


@pytest.mark.parametrize("model", [SILENT, BEGUN])
async def test_a_lost_worker_is_an_error_in_the_dialect(run_dir: Path, model: str) -> None:
    """It is the same whether the worker has sent the headers of its answer or not, for streams and large bodies too."""
    requests = [
        (path, {"stream": is_stream, "messages": [{"role": "user", "content": "x" * size}]})
        for path in EXPECTED
        for is_stream in (False, True)
        for size in (1, 100_000)
    ]
    async with AsyncExitStack() as stack:
        worker = (await stack.enter_async_context(processes(run_dir, model)))[model]
        edge = await stack.enter_async_context(started(subfolder(run_dir, f"l{model}"), [run_dir / f"{model}.sock"]))
        client = await stack.enter_async_context(aiohttp.ClientSession(edge.http, headers=AUTHORIZATION))
        calls = [asyncio.create_task(_call(client, path, {"model": model} | body)) for path, body in requests]
        assert worker.stdout
        for _ in calls:
            assert model.encode() + b"\n" == await worker.stdout.readline()
        worker.kill()
        answers = await asyncio.gather(*calls)
    for (path, body), (status, headers, answer) in zip(requests, answers, strict=True):
        case = path, body["stream"], len(str(body))
        assert (case, EXPECTED[path]) == (case, (status, answer))
        assert ("1", "nosniff", "no-store") == tuple(
            headers.get(name) for name in ("retry-after", "x-content-type-options", "cache-control")
        ), case


async def _call(client: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> tuple[int, Any, Any]:
    headers = {"accept": "text/event-stream" if body["stream"] else "application/json"}
    async with client.post(path, json=body, headers=headers) as response:
        assert "application/json" == response.content_type, await response.text()
        return response.status, response.headers, await response.json()
