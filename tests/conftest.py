"""Setup and order of all tests."""

from pathlib import Path

import grpc.aio
import pytest

# gRPC shuts its asyncio engine down with the last object that uses it, and then waits without a limit for operations
# of abandoned calls. One more user keeps the engine alive until the process ends.
grpc.aio.init_grpc_aio()

_TESTS = Path(__file__).parent
_LONGEST = [
    "e2e/test_documentation.py",
    "e2e/test_target_outage.py",
    "faults/test_neighbour.py",
    "faults/test_stopped.py",
    "faults/test_kills.py",
    "faults/test_replicas.py",
    "faults/test_recorder.py",
    "contract/test_postgres_pgbouncer.py",
    "contract/test_store_contract.py",
    "e2e/test_outage.py",
    "e2e/test_processes.py",
    "e2e/test_process_signals.py",
    "e2e/test_generated_clients.py",
    "e2e/test_proto_clients.py",
    "e2e/test_sdk_node.py",
]
"""The files with the longest durations, the longest first."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, so that no process runs one of them while the others have finished."""
    place = {_TESTS / name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))
