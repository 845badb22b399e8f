"""Fixtures: the backend for another Parley, connected to a scripted gRPC server."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from parley.backends.parley.backend import Parley
from tests.contract.backends import KEY
from tests.contract.parley_vendor import other_parley
from tests.contract.scripted_parley import ScriptedParley


@pytest.fixture
def upstream() -> Iterator[ScriptedParley]:
    """A scripted gRPC server."""
    with ScriptedParley() as server:
        yield server


@pytest_asyncio.fixture
async def backend(upstream: ScriptedParley) -> AsyncIterator[Parley]:
    """The backend, connected to the scripted server."""
    made = other_parley(upstream.address, KEY)
    yield made
    await made.close()
