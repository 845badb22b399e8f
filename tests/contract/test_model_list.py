"""The lists of models of backends, which complete the metadata and the names of `/v1/models`."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from parley.backends.anthropic.backend import Anthropic
from parley.backends.openai.backend import OpenAI
from parley.config import Metadata, UpstreamRequests
from parley.core.errors import UpstreamUnavailable
from parley.core.ports.backends import ListsModels
from parley.core.routing.discovery import Discovery
from tests.contract.test_upstream_requests import configured
from tests.unit.routing.routes import Clock
from tests.upstream import Json, ScriptedUpstream

_LIST = Json({"object": "list", "data": [{"id": "m", "context_window": 8192}]})


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """A server that answers every request."""
    with ScriptedUpstream() as server:
        yield server


async def test_each_kind_of_backend_reads_the_list_of_its_server(upstream: ScriptedUpstream) -> None:
    """The path is that of the vendor's documents, beside the path of completions, and the key is sent."""
    root = upstream.url.removesuffix("/v1")
    for made in (OpenAI(f"{root}/openai/v1/", "key"), Anthropic(root, "key", 100)):
        upstream.answer(_LIST)
        assert {"m": Metadata(context_length=8192)} == await made.list_models()
        await made.close()
    assert ["GET", "GET"] == [request.method for request in upstream.requests]
    assert ["/openai/v1/models", "/v1/models?limit=1000"] == [request.path for request in upstream.requests]


async def test_a_list_is_requested_with_the_query_and_the_key_of_calls(upstream: ScriptedUpstream) -> None:
    """A key in the query is sent too."""
    both = (
        UpstreamRequests(api_key="k-1", key_parameter="key", query={"region": "eu"}),
        UpstreamRequests(api_key="k-1", key_header="x-key"),
    )
    for settings in both:
        upstream.answer(_LIST)
        made = OpenAI(upstream.url, settings=settings)
        await made.list_models()
        await made.close()
    assert ["/v1/models?region=eu&key=k-1", "/v1/models"] == [request.path for request in upstream.requests]
    assert "k-1" == upstream.requests[1].headers["x-key"]


async def test_a_name_of_a_list_is_one_that_requests_have(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Google's list has names with a prefix that its completions reject; other servers' names stay as they are."""
    for settings, expected in (("vendor: gemini", "gemini-2.5-pro"), ("kind: openai", "models/gemini-2.5-pro")):
        upstream.answer(Json({"object": "list", "data": [{"id": "models/gemini-2.5-pro", "owned_by": "google"}]}))
        async with configured(f'{settings}, base_url: "{upstream.url}", api_key: key-1', tmp_path) as made:
            assert isinstance(made, ListsModels)
            assert {expected: Metadata(owner="google")} == await made.list_models()


@pytest.mark.parametrize(
    ("answer", "cause"),
    [(Json({}, status=404), "/v1/models: HTTP 404"), (Json({}), "/v1/models: the answer has no list")],
)
async def test_a_server_without_a_list_is_reported(upstream: ScriptedUpstream, answer: Json, cause: str) -> None:
    """The cause names the path."""
    made = OpenAI(upstream.url)
    upstream.answer(answer)
    with pytest.raises(UpstreamUnavailable) as raised:
        await made.list_models()
    await made.close()
    assert cause in str(raised.value.cause)


async def test_a_list_is_read_at_once() -> None:
    """A worker that a reload has started has the names of a wildcard before its first calls, not a second later."""

    class Lists:
        async def list_models(self) -> dict[str, Metadata]:
            return {"m": Metadata()}

    found = list[object]()
    discovery = Discovery("b", Lists(), lambda _, models: found.append(list(models)))
    discovery.start()
    for _ in range(10):
        await asyncio.sleep(0)
    await discovery.stop()
    assert [["m"]] == found


async def test_the_path_of_a_list_names_no_other_server(upstream: ScriptedUpstream) -> None:
    """A path that begins with two slashes stays a path."""
    made = OpenAI(upstream.url.replace("/v1", "//other.test/v1"))
    upstream.answer(_LIST)
    await made.list_models()
    await made.close()
    assert ["//other.test/v1/models"] == [request.path for request in upstream.requests]


async def test_a_list_is_read_again_when_it_is_old_and_soon_after_a_failure(upstream: ScriptedUpstream) -> None:
    """A list holds for five minutes; after a failure the latest one stays and the server is asked again."""
    clock, found = Clock(), list[object]()
    made = OpenAI(upstream.url)
    discovery = Discovery("b", made, lambda name, models: found.append((name, list(models))), clock)
    upstream.answer(_LIST)
    await discovery.read()
    await discovery.read()
    assert ([("b", ["m"])], 1) == (found, len(upstream.requests))
    clock.now += 301
    upstream.answer(Json({}, status=500))
    for _ in range(2):  # the second time without a request, so that nothing takes the pause for a success
        with pytest.raises(UpstreamUnavailable):
            await discovery.read()
    assert 2 == len(upstream.requests)
    clock.now += 16
    upstream.answer(_LIST)
    await discovery.read()
    await made.close()
    assert 2 * [("b", ["m"])] == found
