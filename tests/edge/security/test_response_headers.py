"""The headers of REST responses that restrict browsers, and reflection without its route."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from parley.supervisor.edge_settings import DEFAULT_EDGE
from tests.edge.conftest import Edge, started
from tests.edge.test_protocols import curl, send_request
from tests.edge.test_workers import subfolder
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = {"model": "m", "messages": [{"role": "user", "content": "<script>alert(1)</script>"}]}
RESTRICTED = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}


@pytest.mark.parametrize(
    ("method", "path", "status", "caching"),
    [
        ("POST", "/v1/chat/completions", 200, "no-store"),
        ("POST", "/v1/chat/completions?stream", 200, "no-cache"),
        ("GET", "/v1/models", 200, "no-store"),
        ("GET", "/api/v1/sessions/s/export", 200, "no-store"),
        ("GET", "/livez", 200, "no-store"),
        ("GET", "/readyz", 503, "no-store"),
        ("GET", "/openapi.json", 200, "no-cache"),
        ("GET", "/parley.binpb", 200, "no-cache"),
        ("GET", "/<script>alert(1)</script>", 404, "no-store"),
        ("GET", "/fastapi/api/v1/x", 404, "no-store"),
        ("PUT", "/v1/models", 405, "no-store"),
    ],
)
async def test_every_response_restricts_browsers(
    client: aiohttp.ClientSession, worker: Worker, method: str, path: str, status: int, caching: str
) -> None:
    """No response may be sniffed, framed or referred from; only public files are stored."""
    body = CHAT | {"stream": path.endswith("?stream")} if method == "POST" else None
    async with client.request(method, path, json=body) as response:
        assert status == response.status
        assert RESTRICTED == {name: response.headers.get(name) for name in RESTRICTED}
        assert caching == response.headers["cache-control"]
        assert not {"server", "via", "x-powered-by", "strict-transport-security"} & set(response.headers)
        assert "html" not in response.headers.get("content-type", "")


async def test_errors_before_any_script_restrict_browsers(edge: Edge) -> None:
    """A request that is not valid HTTP gets JSON with the same headers."""
    answer = await curl("-i", "-X", "GE T", edge.http)
    assert all(f"{name}: {value}" in answer for name, value in RESTRICTED.items())
    status, body = await send_request(edge.port, b"GET /x HTTP/9.9\r\n\r\n")
    assert 400 <= status < 506
    assert b"<" not in body


async def test_reflection_can_be_switched_off(run_dir: Path, the_worker: tuple[Worker, Path]) -> None:
    """Without reflection, its methods are unknown to grpcurl, and every other method is served."""
    settings = replace(DEFAULT_EDGE, reflection=False)
    async with (
        started(subfolder(run_dir, "mirror"), [the_worker[1]], settings) as edge,
        grpc.aio.insecure_channel(edge.grpc) as channel,
    ):
        assert "does not support the reflection API" in await grpcurl("-plaintext", edge.grpc, "list")
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert b"\x08\x01" == await check(b"")


async def grpcurl(*arguments: str) -> str:
    """Runs grpcurl and returns what it prints."""
    command = (str(Path(sys.executable).with_name("grpcurl")), *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=subprocess.STDOUT)
    return (await process.communicate())[0].decode()
