"""Setup and order of all tests."""

import gc
import os
from pathlib import Path

# The tests start processes, which run no gRPC before their program. Its handlers of a fork restart its threads in them,
# which fails now and then with an abort. It must be set before the import.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc.aio
import pytest
from hypothesis import HealthCheck, settings

# Modules and tests live as long as the process. Without the collector, collecting them takes 6.5 s of CPU instead of 10
# s, in each process.
gc.disable()

# gRPC shuts its asyncio engine down with the last object that uses it, and then waits without a limit for operations
# of abandoned calls. One more user keeps the engine alive until the process ends.
grpc.aio.init_grpc_aio()

# `make test-unit` sets fewer examples than Hypothesis's default of 100, which `make test` runs. On a busy machine any
# example can take long.
settings.register_profile(
    "tests",
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")

_TESTS = Path(__file__).parent
_LONGEST = [
    "e2e/test_documentation.py",
    "e2e/test_target_outage.py",
    "e2e/test_shared_limits.py",
    "edge/security/test_supervision.py",
    "e2e/test_admin.py",
    "e2e/test_usage.py",
    "edge/security/test_floods.py",
    "edge/security/test_strangers.py",
    "faults/test_neighbour.py",
    "faults/test_stopped.py",
    "faults/test_kills.py",
    "faults/test_replicas.py",
    "faults/test_recorder.py",
    "contract/test_postgres_pgbouncer.py",
    "contract/test_store_contract.py",
    "e2e/test_outage.py",
    "edge/security/test_canaries.py",
    "e2e/test_identity.py",
    "e2e/test_processes.py",
    "e2e/test_process_signals.py",
    "e2e/test_generated_clients.py",
    "e2e/test_proto_clients.py",
    "e2e/test_sdk_node.py",
    "e2e/test_llama_index.py",
    "unit/routing/test_retry_state_simulation.py",
]
"""The files with the longest durations, the longest first."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the longest files first, so that no process runs one of them after the others have finished."""
    order = {_TESTS / name: number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Enables the collector, which from here on leaves the modules and tests aside."""
    gc.enable()
    gc.freeze()
