"""Indexes the words of an account's turns before a search of it. Turns that no search needs cost nothing."""

import time
from collections.abc import Awaitable, Callable

BATCH_TURNS = 25
"""The turns that one transaction indexes. Other writes of SQLite wait meanwhile."""
BATCH_BYTES = 1 << 20
"""The bytes of messages after which a transaction indexes no further turn."""
INDEX_SECONDS = 1.0
"""The seconds during which one search starts new batches."""
SLACK_SECONDS = 60.0
"""The greatest difference between the times at which turns begin and at which readers see them."""


async def index_all(batch: Callable[[], Awaitable[bool]]) -> bool:
    """Runs batches for up to `INDEX_SECONDS`.

    Args:
        batch: Indexes some turns. Returns whether none remain.

    Returns:
        Whether all turns are indexed.
    """
    ends = time.monotonic() + INDEX_SECONDS
    while not await batch():
        if time.monotonic() >= ends:
            return False
    return True
