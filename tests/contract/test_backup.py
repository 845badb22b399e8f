"""Tests of backups of a store that is in use, and of their restoration."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from parley.cli.db import backup as command
from parley.core.errors import StoreUnavailable
from parley.core.ports import Store
from parley.stores.postgres import PostgresStore
from parley.stores.sqlite import SqliteStore
from parley.stores.sqlite.backup import backup
from parley.supervisor.errors import CommandError
from tests.contract.stores import all_messages, converse, key
from tests.keys import event
from tests.postgres import Server

TURNS = 5


async def _while_in_use(store: Store, work: Callable[[], Awaitable[object]]) -> int:
    """Runs a backup under turns that go on until it has ended. Returns the number of sessions before it."""
    done, stopped = 0, asyncio.Event()

    async def talk() -> None:
        nonlocal done
        while not stopped.is_set() or done < 2 * TURNS:
            await converse(store, f"s{done}", "q", "a", new=True)
            done += 1

    talking = asyncio.create_task(talk())
    while done < TURNS:
        await asyncio.sleep(0.005)
    before = done
    await work()
    stopped.set()
    await talking
    return before


async def _require_sessions(store: Store, sessions: int) -> None:
    """Asserts that the sessions and the key are complete, and that the store takes turns."""
    for number in range(sessions):
        assert ["q", "a"] == [text for text, *_ in await all_messages(store, f"s{number}")]
    assert key(1) == await store.get_key(key(1).id)
    await converse(store, "after", "q", "a", new=True)


async def test_sqlite(tmp_path: Path) -> None:
    """A copy of a file in use has every turn that was acknowledged before, and takes the place of the lost file."""
    file, copy = tmp_path / "parley.db", tmp_path / "copy.db"
    store = SqliteStore(file)
    await store.add_key(key(1), event)
    identity = await store.identity()
    before = await _while_in_use(store, lambda: asyncio.to_thread(backup, file, copy))
    await store.close()
    assert 0o600 == copy.stat().st_mode & 0o777
    for lost in ("parley.db", "parley.db-wal", "parley.db-shm"):
        (tmp_path / lost).unlink(missing_ok=True)
    copy.rename(file)
    restored = SqliteStore(file, identity=identity)
    await _require_sessions(restored, before)
    await restored.close()


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    """A backup replaces no file, and one that fails leaves none."""
    existing = tmp_path / "existing.db"
    existing.write_text("important")
    command(to=tmp_path / "first.db", state_dir=_with_store(tmp_path))
    with pytest.raises(CommandError, match=r"existing\.db exists; name a new file"):
        command(to=existing, state_dir=tmp_path / "state")
    assert "important" == existing.read_text()
    with pytest.raises(CommandError, match="cannot be written: No such file or directory"):
        command(to=tmp_path / "missing" / "copy.db", state_dir=tmp_path / "state")
    (tmp_path / "damaged.db").write_bytes(b"x" * 5000)
    with pytest.raises(StoreUnavailable) as failed:
        backup(tmp_path / "damaged.db", tmp_path / "copy.db")
    assert "file is not a database" in str(failed.value.cause)
    assert {"state", "first.db", "existing.db", "damaged.db"} == {path.name for path in tmp_path.iterdir()}


def _with_store(tmp_path: Path) -> Path:
    """Returns a state folder with a store."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    asyncio.run(SqliteStore(folder / "parley.db").close())
    return folder


async def test_postgres(postgres_server: Server, postgres_url: str, tmp_path: Path) -> None:
    """`pg_dump` of a database in use, restored by `pg_restore`, has the identity and every earlier turn."""
    url = postgres_url
    store = await PostgresStore.open(url)
    await store.add_key(key(1), event)
    identity = await store.identity()
    dump = tmp_path / "parley.dump"

    async def dumped() -> None:
        await asyncio.to_thread(
            postgres_server.program, "pg_dump", "-Fc", "-n", "parley", "-f", str(dump), postgres_url
        )

    before = await _while_in_use(store, dumped)
    await store.close()
    url = await asyncio.to_thread(postgres_server.empty, "restored")
    await asyncio.to_thread(postgres_server.program, "pg_restore", "-e", "-1", "-d", url, str(dump))
    restored = await PostgresStore.open(url, identity=identity)
    await _require_sessions(restored, before)
    await restored.close()
