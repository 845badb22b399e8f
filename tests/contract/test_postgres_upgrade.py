"""Tests of two versions of Parley on one database: upgrades of the schema while older workers run."""

import asyncio
import time
from typing import Any

import asyncpg
import pytest

from parley.core.errors import StoreUnavailable
from parley.core.ports import SessionFilter
from parley.stores.migrations import Migration, migrations
from parley.stores.postgres import PostgresStore, Timeouts, database, pool, schema, upgrade
from tests.contract.stores import converse, texts
from tests.postgres import Server
from tests.processes import PATIENCE

STEPS = migrations("parley.stores.postgres")
NOW = len(STEPS)
ADDITION = f"-- oldest-worker: {NOW}\nALTER TABLE parley.sessions ADD COLUMN colour text"
_ROWS = """
INSERT INTO parley.sessions (id, account, model, created, updated, turn_count, lease_fence)
SELECT 's' || number, 'ada', 'm', 1, 1, 1, 1 FROM generate_series(1, 50) AS number;
INSERT INTO parley.turns (session_id, number, state, created, asked, messages, tokens, continues)
SELECT id, 1, 'completed', 1, 1, 1, 1, false FROM parley.sessions;
INSERT INTO parley.messages (session_id, turn, position, message, system)
SELECT id, 1, 0, '', false FROM parley.sessions
"""
_READ = """
SELECT relname, seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables
WHERE schemaname = 'parley' AND relname IN ('sessions', 'turns', 'messages') AND seq_tup_read + idx_tup_fetch > 0
"""
REMOVAL = "ALTER TABLE parley.sessions DROP COLUMN colour"


async def _upgrade_to(url: str, monkeypatch: pytest.MonkeyPatch, *more: str, command: float = 5.0) -> tuple[int, int]:
    """Upgrades as a later Parley does, with further migrations."""
    later = [Migration(NOW + number, sql) for number, sql in enumerate(more, 1)]
    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrations", lambda _package: [*STEPS, *later])
        patch.setattr(database, "steps", lambda: NOW + len(later))
        return await schema.upgrade(database.Database(url, Timeouts(command=command)))


async def test_an_older_worker_serves_a_schema_that_supports_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an addition, an older worker goes on with its sessions, another one starts, and its upgrade is empty."""
    running = await PostgresStore.open(postgres_url)
    await converse(running, "s", "q1", "a1", new=True)
    assert (NOW, NOW + 1) == await _upgrade_to(postgres_url, monkeypatch, ADDITION)
    later = await PostgresStore.open(postgres_url, allow_unavailable=True)
    for store, question in ((running, "q2"), (later, "q3")):
        await store.check()
        await converse(store, "s", question, "a")
    found, _ = await later.list_messages("ada", "s", page_size=9, page_token=None)
    assert ["q1", "a1", "q2", "a", "q3", "a"] == texts([one.message for one in found])
    assert (NOW + 1, NOW + 1) == await upgrade(postgres_url)
    for store in (running, later):
        await store.close()


async def test_an_older_worker_stops_at_a_schema_that_does_not_support_it(
    postgres_server: Server, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a removal, a running older worker is unavailable from its next check, and none starts; the error names why.

    Nothing of it is permanent: the worker is available again when the schema supports it again.
    """
    monkeypatch.setattr(pool, "CHECK_SECONDS", 0.0)
    running = await PostgresStore.open(postgres_url)
    await converse(running, "s", "q1", "a1", new=True)
    assert (NOW, NOW + 2) == await _upgrade_to(postgres_url, monkeypatch, ADDITION, REMOVAL)
    cause = f"has version {NOW + 2}, which supports Parleys of version {NOW + 2} and later; this Parley has {NOW}"
    for attempt in (running.check(), PostgresStore.open(postgres_url), upgrade(postgres_url)):
        with pytest.raises(StoreUnavailable) as rejected:
            await attempt
        assert cause in str(rejected.value.cause)
    with pytest.raises(StoreUnavailable) as rejected:
        await converse(running, "s", "q2", "a2")
    assert cause in str(rejected.value.cause)
    await asyncio.to_thread(postgres_server.sql, f"DELETE FROM parley.migrations WHERE number > {NOW}", "parley")
    await _until_available(running)
    await converse(running, "s", "q2", "a2")
    await running.close()


async def test_a_database_of_before_this_rule(postgres_server: Server, postgres_url: str) -> None:
    """A database whose migrations do not name the oldest worker supports its own version, and is upgraded."""
    await upgrade(postgres_url)
    drop = "ALTER TABLE parley.migrations DROP COLUMN oldest_worker"
    await asyncio.to_thread(postgres_server.sql, drop, "parley")
    await (await PostgresStore.open(postgres_url)).close()
    await asyncio.to_thread(postgres_server.sql, "INSERT INTO parley.migrations VALUES (99)", "parley")
    with pytest.raises(StoreUnavailable) as rejected:
        await PostgresStore.open(postgres_url)
    assert "supports Parleys of version 99 and later" in str(rejected.value.cause)


async def test_the_oldest_worker_of_each_migration(postgres_server: Server, postgres_url: str) -> None:
    """The database has the oldest worker of each migration, which is at most the migration itself."""
    await upgrade(postgres_url)
    rows = await asyncio.to_thread(
        postgres_server.sql, "SELECT number, oldest_worker FROM parley.migrations ORDER BY 1", "parley"
    )
    assert [f"{step.number}|{step.oldest_worker}" for step in STEPS] == rows.splitlines()
    assert all(1 <= step.oldest_worker <= step.number for step in STEPS)


async def test_a_migration_may_take_longer_than_a_call(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No timeout of calls ends a migration; those before one that fails remain, and the upgrade can be repeated."""
    await upgrade(postgres_url)
    slow = f"{ADDITION}; SELECT pg_sleep(0.5)"
    with pytest.raises(StoreUnavailable) as failed:
        await _upgrade_to(
            postgres_url, monkeypatch, slow, "ALTER TABLE parley.sessions DROP COLUMN nothing", command=0.2
        )
    assert '"nothing"' in str(failed.value.cause)
    assert (NOW + 1, NOW + 2) == await _upgrade_to(postgres_url, monkeypatch, slow, REMOVAL, command=0.2)


@pytest.mark.parametrize("pooled", [False, True])
async def test_no_later_migration_reads_a_table_with_rows(
    postgres_server: Server, postgres_url: str, monkeypatch: pytest.MonkeyPatch, pooled: bool
) -> None:
    """Migrations after 11 read no row of sessions, turns and messages: their locks last milliseconds."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrations", lambda _package: STEPS[:11])
        patch.setattr(database, "steps", lambda: 11)
        await upgrade(postgres_url)
    await asyncio.to_thread(postgres_server.sql, _ROWS, "parley")
    read: list[tuple[object, ...]] = []

    class Recording(asyncpg.Connection):
        async def execute(self, query: str, *args: Any, **options: Any) -> Any:
            result = await super().execute(query, *args, **options)
            if "INTO parley.migrations" in query:
                read.extend([(args[0], *row) for row in await self.fetch(_READ)])
                await super().execute("UPDATE parley.sessions SET title = 'A Refund'")
            return result

    connect = asyncpg.connect
    monkeypatch.setattr(
        asyncpg, "connect", lambda *args, **options: connect(*args, **options, connection_class=Recording)
    )
    assert (11, NOW) == await upgrade(postgres_url, pooled=pooled)
    assert [] == read


async def test_titles_of_before_are_found(postgres_server: Server, postgres_url: str) -> None:
    """A title that was set before titles were folded is found in any letter case."""
    store = await PostgresStore.open(postgres_url)
    await converse(store, "s", "q", "a", new=True)
    await store.update_session("ada", "s", "A Refund", {})
    await asyncio.to_thread(postgres_server.sql, "UPDATE parley.sessions SET folded_title = NULL", "parley")
    found, _ = await store.list_sessions("ada", SessionFilter(query="refund"), page_size=9, page_token=None)
    assert ["A Refund"] == [session.title for session in found]
    await store.close()


async def _until_available(store: PostgresStore) -> None:
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            await store.check()
        except StoreUnavailable:
            assert time.monotonic() < ends
            await asyncio.sleep(0.05)
        else:
            return
