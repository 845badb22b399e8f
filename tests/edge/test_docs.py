"""The documentation at `/docs/`, served by Envoy."""

from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from parley.supervisor.edge_settings import DEFAULT_EDGE
from tests.edge.conftest import Edge, started
from tests.edge.test_workers import subfolder
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTS = ("127.0.0.1", "openpipe.example.com", "api.openai.com")


@pytest.mark.parametrize("host", HOSTS)
async def test_the_documentation_is_served_at_every_host(edge: Edge, worker: Worker, host: str) -> None:
    """It needs no credential and no worker; browsers restrict it, and get the same page again without its body."""
    async with aiohttp.ClientSession(edge.http, headers={"host": host}) as session:
        async with session.get("/docs/sessions/?a=b") as response:
            assert (200, "text/html; charset=utf-8") == (response.status, response.headers["content-type"])
            assert ("gzip", "nosniff") == tuple(
                map(response.headers.get, ("content-encoding", "x-content-type-options"))
            )
            [policy] = response.headers.getall("content-security-policy")
            assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-")
            assert "<h1" in await response.text()
            tag = response.headers["etag"]
        async with session.get("/docs/sessions/", headers={"if-none-match": f'W/"0", {tag}'}) as response:
            assert (304, tag, policy) == (
                response.status,
                response.headers["etag"],
                response.headers["content-security-policy"],
            )
            assert "location" not in response.headers
    assert [] == worker.calls


@pytest.mark.parametrize(("path", "place"), [("/docs", "/docs/"), ("/docs/sessions", "/docs/sessions/")])
async def test_a_path_without_its_slash_leads_to_the_page(client: aiohttp.ClientSession, path: str, place: str) -> None:
    """The address is relative: a proxy in front may have another scheme and host."""
    async with client.get(path, allow_redirects=False) as response:
        assert (308, place) == (response.status, response.headers["location"])


async def test_the_documentation_is_only_read(client: aiohttp.ClientSession) -> None:
    """HEAD has the headers of GET and no body; other methods are rejected with those that are allowed."""
    async with client.get("/docs/") as response:
        expected = [response.status, *map(response.headers.get, ("content-type", "content-length", "etag"))]
    async with client.head("/docs/") as response:
        assert expected == [response.status, *map(response.headers.get, ("content-type", "content-length", "etag"))]
        assert b"" == await response.read()
    async with client.post("/docs/", data=b"x" * 100_000) as response:
        assert (405, "GET, HEAD") == (response.status, response.headers["allow"])


@pytest.mark.parametrize(
    "path",
    ["/docs/nothing", "/docs/index.json", "/docs/../envoy.yaml", "/docs/%2e%2e/envoy.yaml", "/docs//", "/docs/a\\b"],
)
async def test_no_other_file_can_be_read(client: aiohttp.ClientSession, path: str) -> None:
    """Paths that no file of the site has get its page for unknown paths."""
    url = URL(f"{client._base_url}".rstrip("/") + path, encoded=True)  # noqa: SLF001
    async with client.get(url) as response:
        assert (404, "text/html") == (response.status, response.content_type)
        assert "/docs/assets/" in await response.text()


async def test_a_similar_path_is_no_page(client: aiohttp.ClientSession) -> None:
    """A path that only begins like those of the documentation is unknown, in JSON."""
    async with client.get("/docsx") as response:
        assert (404, "application/json") == (response.status, response.content_type)


async def test_the_documentation_can_be_switched_off(run_dir: Path, the_worker: tuple[Worker, Path]) -> None:
    """Without it, its paths are unknown, and the API is served as before."""
    settings = replace(DEFAULT_EDGE, site=False)
    async with (
        started(subfolder(run_dir, "bare"), [the_worker[1]], settings) as edge,
        aiohttp.ClientSession(edge.http, headers={"authorization": "Bearer sk-1"}) as session,
    ):
        for path, status in (("/docs/", 404), ("/docs", 404), ("/v1/models", 200)):
            async with session.get(path) as response:
                assert (status, "application/json") == (response.status, response.content_type)
