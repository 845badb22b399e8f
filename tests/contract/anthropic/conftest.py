"""Fixtures: the backend for Anthropic's Messages API, connected to a scripted HTTP server."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from parley.backends.anthropic.backend import Anthropic
from tests.contract.anthropic_api import message, text_block
from tests.contract.backends import KEY
from tests.upstream import ScriptedUpstream


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """A scripted HTTP server; by default it answers "Hello."."""
    with ScriptedUpstream() as server:
        server.default = lambda _: message(text_block("Hello."))
        yield server


@pytest_asyncio.fixture
async def backend(upstream: ScriptedUpstream) -> AsyncIterator[Anthropic]:
    """The backend, connected to the scripted upstream."""
    made = Anthropic(f"http://{upstream.address}", KEY, max_tokens=1000)
    yield made
    await made.close()
