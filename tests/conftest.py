"""Setup and order of all tests."""

from pathlib import Path

import grpc.aio
import pytest

# gRPC shuts its asyncio engine down with the last object that uses it, and then waits without a limit for operations
# of abandoned calls. One more user keeps the engine alive until the process ends.
grpc.aio.init_grpc_aio()

_FAULTS = Path(__file__).parent / "faults"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, so that no process runs one of them while the others have finished."""
    items.sort(key=lambda item: not item.path.is_relative_to(_FAULTS))
