"""What accounts have stored, in SQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from parley.core.ports import StorageLimits
from parley.core.sessions import storage
from parley.stores.postgres.database import Connection

_LOCK = "SELECT sessions, bytes FROM parley.lock_storage($1)"


@asynccontextmanager
async def account_space(
    db: Connection, account: str, limits: StorageLimits, *, sessions: int, added: int
) -> AsyncIterator[None]:
    """Reserves space until the end of the block, in which sessions or messages are stored.

    A limited account stores in one transaction at a time, so that its limits hold exactly. Other accounts do not wait.

    Raises:
        StorageLimitExceeded: The account cannot store so many sessions and bytes.
    """
    if not storage.limits_account(limits):
        yield
        return
    async with db.transaction():
        use = await db.fetchrow(_LOCK, account)
        assert use is not None  # noqa: S101 - for the type checker
        stored = storage.StorageUse(*use)
        storage.require_account_space(limits, account, stored, sessions=sessions, added=added)
        yield
