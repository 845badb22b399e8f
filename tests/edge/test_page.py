"""The page at `/`, served by Envoy."""

import re
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from parley.supervisor.edge_settings import DEFAULT_EDGE
from tests.edge.conftest import Edge, started
from tests.edge.test_workers import subfolder
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTS = ("127.0.0.1", "openpipe.example.com", "api.openai.com", "fastapi.example.com:8080")
KEPT = "public, max-age=31536000, immutable"


@pytest.mark.parametrize("host", HOSTS)
async def test_the_page_is_at_the_root_of_every_host(edge: Edge, worker: Worker, host: str) -> None:
    """The page needs no credential, also where a sign-in leads back to it; browsers restrict it."""
    async with aiohttp.ClientSession(edge.http, headers={"host": host}) as session:
        for path in ("/", "/?code=a&state=b"):
            async with session.get(path) as response:
                assert (200, "text/html; charset=utf-8") == (response.status, response.headers["content-type"])
                assert "no-cache" == response.headers["cache-control"]
                assert "nosniff" == response.headers["x-content-type-options"]
                assert "no-referrer" == response.headers["referrer-policy"]
                assert "same-origin" == response.headers["cross-origin-opener-policy"]
                policies = response.headers.getall("content-security-policy")
                assert "<title>Parley</title>" in await response.text()
            (policy,) = policies
            assert "default-src 'none'; script-src 'self'; " in policy
            assert "frame-ancestors 'none'" in policy
    assert [] == worker.calls


async def test_the_files_of_the_page_are_compressed_and_kept(client: aiohttp.ClientSession) -> None:
    """Each file that the index refers to has its type, is compressed, and is kept by browsers forever."""
    async with client.get("/") as response:
        files = re.findall(r'"(/page/[^"]+)"', await response.text())
    assert {".js", ".css", ".svg", ".txt"} == {Path(file).suffix for file in files}
    for file in files:
        async with client.get(file) as response:
            assert (200, "gzip", KEPT) == (
                response.status,
                response.headers["content-encoding"],
                response.headers["cache-control"],
            )
            assert (await response.text()).strip()


@pytest.mark.parametrize("path", ["/", "/page/settings.json"])
async def test_the_page_is_only_read(client: aiohttp.ClientSession, path: str) -> None:
    """HEAD has the headers of GET and no body; other methods are rejected in JSON, with those that are allowed."""
    async with client.get(path) as response:
        expected = (200, response.headers["content-type"], response.headers["content-length"])
    async with client.head(path) as response:
        assert expected == (response.status, response.headers["content-type"], response.headers["content-length"])
        assert b"" == await response.read()
    for method in ("POST", "PUT", "DELETE"):
        async with client.request(method, path) as response:
            assert (405, "GET, HEAD") == (response.status, response.headers["allow"])
            assert "error" in await response.json()


@pytest.mark.parametrize(
    "path", ["/page", "/page/", "/page/x.js", "/page/index.html", "/page/../", "/index.html", "//", "/%2e"]
)
async def test_other_paths_stay_unknown(client: aiohttp.ClientSession, path: str) -> None:
    """A path that only resembles one of the page is unknown, in JSON."""
    from yarl import URL

    async with client.get(URL(f"{client._base_url}".rstrip("/") + path, encoded=True)) as response:  # noqa: SLF001
        assert (404, "application/json") == (response.status, response.content_type)
        assert (await response.json())["error"].startswith("Unknown request URL: GET ")


async def test_the_page_can_be_switched_off(run_dir: Path, the_worker: tuple[Worker, Path]) -> None:
    """Without the page, its paths are unknown, and the API is served as before."""
    settings = replace(DEFAULT_EDGE, page=False)
    async with (
        started(subfolder(run_dir, "bare"), [the_worker[1]], settings) as edge,
        aiohttp.ClientSession(edge.http, headers={"authorization": "Bearer sk-1"}) as session,
    ):
        for path, status in (("/", 404), ("/page/settings.json", 404), ("/v1/models", 200)):
            async with session.get(path) as response:
                assert (status, "application/json") == (response.status, response.content_type)
