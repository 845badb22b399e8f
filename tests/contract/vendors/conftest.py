"""The backend of each vendor in turn, on a server of that vendor that follows a script."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from parley.core.ports import Backend
from tests.contract.backends import Upstream, Vendor
from tests.contract.http_vendors import HTTP_VENDORS


@pytest.fixture(params=HTTP_VENDORS, ids=lambda vendor: vendor.name)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    """Each vendor that speaks HTTP; a module may take others."""
    found: Vendor = request.param
    return found


@pytest.fixture
def upstream(vendor: Vendor) -> Iterator[Upstream]:
    """The vendor's server, which follows a script."""
    with vendor.serve() as server:
        yield server


@pytest_asyncio.fixture
async def backend(vendor: Vendor, upstream: Upstream) -> AsyncIterator[Backend]:
    """The vendor's backend, on the scripted upstream."""
    made = vendor.backend(upstream.address)
    yield made
    await made.close()
