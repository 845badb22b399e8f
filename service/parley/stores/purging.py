"""Removes the rows of deleted sessions in batches, each in a transaction of its own.

A deletion marks the session, which hides it from all readers at once. The rows are removed afterwards: for up to
`PURGE_SECONDS` in the same call, then by the reaper of any worker.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

BATCH_ROWS = 2000
BATCH_BYTES = 8 << 20
PURGE_SECONDS = 1.0
"""The seconds during which one call starts new batches."""


class PurgeCursor(NamedTuple):
    """The key of the first message that a batch removes.

    Attributes:
        turn: The number of the turn within the session.
        position: The position of the message within the turn.
    """

    turn: int = 0
    position: int = 0


END = PurgeCursor(2**31 - 1, 2**31 - 1)
"""A cursor after all messages."""


def batch_end(messages: Sequence[tuple[int, int, int]]) -> PurgeCursor:
    """Returns the cursor of the first message of the following batch; `END` if this batch removes all messages.

    Args:
        messages: Turn, position and bytes of the session's next `BATCH_ROWS + 1` messages, in order.
    """
    size = 0
    for count, (turn, position, more) in enumerate(messages):
        if count == BATCH_ROWS or size > BATCH_BYTES:
            return PurgeCursor(turn, position)
        size += more
    return END


async def purge_session(batch: Callable[[PurgeCursor], Awaitable[PurgeCursor | None]], ends: float) -> None:
    """Runs batches on one session until it is removed or time is up.

    Args:
        batch: Removes the rows from a cursor on. Returns the next cursor, or None if nothing remains for this caller.
        ends: The time of `time.monotonic` after which no batch starts.
    """
    cursor: PurgeCursor | None = PurgeCursor()
    while cursor is not None and time.monotonic() < ends:
        cursor = await batch(cursor)


async def purge_all(
    find: Callable[[], Awaitable[str | None]], batch: Callable[[str, PurgeCursor], Awaitable[PurgeCursor | None]]
) -> bool:
    """Purges deleted sessions one after another, for up to `PURGE_SECONDS`.

    Args:
        find: Returns the id of a deleted session that no other worker is purging; None if there is none.
        batch: See `purge_session`.

    Returns:
        Whether rows may remain.
    """
    ends = time.monotonic() + PURGE_SECONDS
    while time.monotonic() < ends:
        session_id = await find()
        if session_id is None:
            return False
        await purge_session(lambda cursor, session_id=session_id: batch(session_id, cursor), ends)  # type: ignore[misc]
    return True
