"""Fixtures that run each test with every vendor's backend and a scripted server of that vendor."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from parley.core.ports import Backend
from tests.contract.backends import Upstream, Vendor
from tests.contract.http_vendors import HTTP_VENDORS


@pytest.fixture(params=HTTP_VENDORS, ids=lambda vendor: vendor.name)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    """Each HTTP vendor in turn; a module may override the list."""
    found: Vendor = request.param
    return found


@pytest.fixture
def upstream(vendor: Vendor) -> Iterator[Upstream]:
    """The vendor's scripted server."""
    with vendor.serve() as server:
        yield server


@pytest_asyncio.fixture
async def backend(vendor: Vendor, upstream: Upstream) -> AsyncIterator[Backend]:
    """The vendor's backend, connected to the scripted server."""
    made = vendor.backend(upstream.address)
    yield made
    await made.close()
