"""Removes the rows of deleted sessions in batches, each in a transaction of its own.

A deletion marks the session, which hides it from every reader at once. The rows follow: in the same call while
`PURGE_SECONDS` last, then in the reaper of any worker.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

BATCH_ROWS = 2000
BATCH_BYTES = 8 << 20
PURGE_SECONDS = 1.0
"""How long one call goes on to begin new batches."""


class PurgeCursor(NamedTuple):
    """The key of a message within its session: the first one that a batch removes."""

    turn: int = 0
    position: int = 0


END = PurgeCursor(2**31 - 1, 2**31 - 1)
"""A place after every message."""


def batch_end(messages: Sequence[tuple[int, int, int]]) -> PurgeCursor:
    """Returns the first message that is left to the next batch; `END` where the batch removes all of them.

    Args:
        messages: Turn, position and bytes of the session's next `BATCH_ROWS + 1` messages, in their order.
    """
    size = 0
    for count, (turn, position, more) in enumerate(messages):
        if count == BATCH_ROWS or size > BATCH_BYTES:
            return PurgeCursor(turn, position)
        size += more
    return END


async def purge_session(batch: Callable[[PurgeCursor], Awaitable[PurgeCursor | None]], ends: float) -> None:
    """Runs batches on one session until it is removed.

    Args:
        batch: Removes rows from a place on. Returns where to go on; None where nothing is left to this caller.
        ends: The time, of `time.monotonic`, after which no batch begins.
    """
    cursor: PurgeCursor | None = PurgeCursor()
    while cursor is not None and time.monotonic() < ends:
        cursor = await batch(cursor)


async def purge_all(
    find: Callable[[], Awaitable[str | None]], batch: Callable[[str, PurgeCursor], Awaitable[PurgeCursor | None]]
) -> bool:
    """Purges one deleted session after the other, for up to `PURGE_SECONDS`.

    Args:
        find: Returns a deleted session that no other worker is removing at the moment.
        batch: See `purge_session`.

    Returns:
        Whether there may be more to do.
    """
    ends = time.monotonic() + PURGE_SECONDS
    while time.monotonic() < ends:
        session_id = await find()
        if session_id is None:
            return False
        await purge_session(lambda cursor, session_id=session_id: batch(session_id, cursor), ends)  # type: ignore[misc]
    return True
