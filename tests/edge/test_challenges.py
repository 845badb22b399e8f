"""Challenges of refused credentials, and the metadata of the protected resource, as clients receive them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio

from parley.core.errors import InsufficientScope, InvalidApiKey, InvalidToken, ParleyError
from parley.rpc import errors
from parley.rpc.metadata.challenges import Challenges
from parley.supervisor.edge_settings import EdgeSettings
from parley.v1.identity_pb2 import GetProtectedResourceRequest
from parley.v1.identity_pb2_grpc import IdentityStub
from parley.v1.models_pb2 import ListModelsRequest
from parley.v1.models_pb2_grpc import ModelsStub
from tests.edge.conftest import Edge, started
from tests.edge.errors import REQUEST
from tests.edge.worker import Context, Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/.well-known/oauth-protected-resource"
URL = "https://api.example.com/.well-known/oauth-protected-resource/llm"
TOKEN = {"authorization": "Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln"}
PLAIN = 'Bearer realm="parley"'
BAD_KEY = f'{PLAIN}, error="invalid_token", error_description="Invalid API key"'
BAD_TOKEN = f'{PLAIN}, error="invalid_token", error_description="It has expired"'
NO_SCOPE = f'{PLAIN}, error="insufficient_scope", error_description="It lacks b", scope="a b"'
FAILURES: list[tuple[ParleyError, int, str]] = [
    (InvalidApiKey(), 401, BAD_KEY),
    (InvalidToken("It has expired"), 401, BAD_TOKEN),
    (InsufficientScope(["a", "b"], "It lacks b"), 403, NO_SCOPE),
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def located(the_worker: tuple[Worker, Path], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """An edge whose callers may get access tokens; the public URL comes from the request."""
    folder = tmp_path_factory.mktemp("e")
    async with started(folder, [the_worker[1]], EdgeSettings(resource_metadata=PATH)) as running:
        yield running


def failing(error: ParleyError, url: str | None = None) -> Any:
    """Returns a handler that fails as the service does."""

    async def fail(_request: Any, context: Context) -> None:
        trailing = (*errors.trailing_metadata(error), *Challenges(url).metadata(error))
        await context.abort(errors.status(error), error.message, trailing)

    return fail


async def challenge(edge: Edge, headers: dict[str, str]) -> tuple[int, str | None]:
    """Sends a completion; returns the status and the challenge."""
    async with (
        aiohttp.ClientSession(edge.http, headers=headers) as session,
        session.post("/v1/chat/completions", json=REQUEST) as response,
    ):
        assert not [name for name in response.headers if name.lower().startswith("parley-error")]
        return response.status, response.headers.get("www-authenticate")


@pytest.mark.parametrize(("error", "status", "expected"), FAILURES)
async def test_challenges_of_the_service(
    edge: Edge, located: Edge, worker: Worker, error: ParleyError, status: int, expected: str
) -> None:
    """REST callers get the service's challenge; with issuers, also the URL of the metadata at the host they called."""
    worker.complete = failing(error)
    assert (status, expected) == await challenge(edge, TOKEN)
    assert (status, f'{expected}, resource_metadata="{located.http}{PATH}"') == await challenge(located, TOKEN)
    public = {**TOKEN, "host": "api.example.com"}
    assert (status, f'{expected}, resource_metadata="http://api.example.com{PATH}"') == await challenge(located, public)


async def test_a_configured_url_is_sent_once(located: Edge, worker: Worker) -> None:
    """The URL that the service writes replaces the one from the request."""
    worker.complete = failing(InvalidApiKey(), URL)
    assert (401, f'{BAD_KEY}, resource_metadata="{URL}"') == await challenge(located, TOKEN)


@pytest.mark.parametrize(("headers", "expected"), [({}, PLAIN), ({"authorization": "Bearer nonsense"}, BAD_KEY)])
async def test_challenges_of_the_edge(
    edge: Edge, located: Edge, worker: Worker, headers: dict[str, str], expected: str
) -> None:
    """A request that no worker receives gets the same challenges."""
    assert (401, expected) == await challenge(edge, headers)
    assert (401, f'{expected}, resource_metadata="{located.http}{PATH}"') == await challenge(located, headers)
    assert [] == worker.calls


async def test_a_challenge_of_grpc(located: Edge, worker: Worker) -> None:
    """gRPC callers get the challenge in the metadata, without a URL: the metadata are on the REST listener."""
    async with grpc.aio.insecure_channel(located.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ModelsStub(channel).ListModels(ListModelsRequest())
    failed = caught.value
    sent = dict([*failed.initial_metadata(), *failed.trailing_metadata()])
    assert (grpc.StatusCode.UNAUTHENTICATED, PLAIN) == (failed.code(), sent["www-authenticate"])


async def test_the_metadata_of_the_resource(edge: Edge, worker: Worker) -> None:
    """The metadata need no credential; the service learns the address that the client has called."""
    async with aiohttp.ClientSession(edge.http, headers={"host": "api.example.com"}) as session:
        async with session.get(f"{PATH}/llm/v1") as response:
            assert (200, "application/json") == (response.status, response.content_type)
            assert {"resource": "http://api.example.com/llm/v1", "bearer_methods_supported": ["header"]} == (
                await response.json()
            )
        async with session.post(PATH) as response:
            assert (405, "GET") == (response.status, response.headers["allow"])
    async with grpc.aio.insecure_channel(edge.grpc) as channel:
        assert "" == (await IdentityStub(channel).GetProtectedResource(GetProtectedResourceRequest())).resource


async def test_a_client_cannot_choose_the_address(edge: Edge, worker: Worker) -> None:
    """The edge's own header is removed from requests."""
    async with (
        aiohttp.ClientSession(edge.http, headers={"parley-origin": "https://evil.example"}) as session,
        session.get(PATH) as response,
    ):
        assert {"resource": edge.http, "bearer_methods_supported": ["header"]} == await response.json()
