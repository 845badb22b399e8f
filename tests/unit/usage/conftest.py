"""Fixtures: rate limits with a store in memory."""

import pytest

from parley.core.usage.limits import RateLimiter
from tests.unit.usage.memory_store import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    """Buckets without charges."""
    return MemoryStore()


@pytest.fixture
def limits(store: MemoryStore) -> RateLimiter:
    """Limits of keys and accounts."""
    return RateLimiter(store)
