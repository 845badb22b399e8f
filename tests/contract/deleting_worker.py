"""A worker process that deletes one session of the account `ada`, for tests that kill it.

    python -m tests.contract.deleting_worker DATABASE SESSION

DATABASE is an SQLite file, or the URL of a PostgreSQL database.
"""

import asyncio
import sys
from pathlib import Path

from parley.core.ports import Store
from parley.stores.postgres import PostgresStore
from parley.stores.sqlite import SqliteStore


async def _main(database: str, session: str) -> None:
    store: Store = await PostgresStore.open(database) if "://" in database else SqliteStore(Path(database))
    await store.delete_session("ada", session)
    await store.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2]))
