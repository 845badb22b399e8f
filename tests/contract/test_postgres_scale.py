"""Tests of the plans of the store's statements on tables with rows, and of upgrades under traffic."""

import asyncio

import asyncpg
import pytest

from parley.core.errors import StoreUnavailable
from parley.stores.migrations import Migration, migrations
from parley.stores.postgres import PostgresStore, schema, upgrade
from tests.contract.stores import converse
from tests.load.scale import fill, scans
from tests.postgres import Server
from tests.processes import PATIENCE

STEPS = migrations("parley.stores.postgres")


async def test_no_statement_scans_a_growing_table(postgres_server: Server, postgres_url: str) -> None:
    """Every statement finds its rows by an index; without that index the same check fails."""
    await upgrade(postgres_url)
    await asyncio.to_thread(fill, postgres_server, 4000)
    assert {} == await asyncio.to_thread(scans, postgres_server)
    await asyncio.to_thread(postgres_server.sql, "DROP INDEX parley.claims_by_age", "parley")
    found = await asyncio.to_thread(scans, postgres_server)
    assert {"reaper._CLAIMS": {"claims"}} == found


async def test_an_upgrade_does_not_queue_calls_behind_its_lock(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that cannot lock a table gives up and tries again, so that calls go on meanwhile."""
    await upgrade(postgres_url)
    store, other = await PostgresStore.open(postgres_url), await asyncpg.connect(postgres_url)
    step = _add_migration(monkeypatch)
    monkeypatch.setattr(schema, "LOCK_SECONDS", 0.1)
    async with other.transaction():  # a report, or a dump, that reads the table for a long time
        await other.execute("SELECT FROM parley.sessions LIMIT 1")
        upgrading = asyncio.create_task(upgrade(postgres_url))
        async with asyncio.timeout(PATIENCE):
            for number in range(20):
                await converse(store, f"s{number}", "q", "a", new=True)
        assert not upgrading.done()
    assert (step.number - 1, step.number) == await upgrading
    await store.close()
    await other.close()


async def test_an_upgrade_names_the_lock_that_it_did_not_get(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade ends with the cause if the table stays locked, and has changed nothing."""
    await upgrade(postgres_url)
    other = await asyncpg.connect(postgres_url)
    step = _add_migration(monkeypatch)
    monkeypatch.setattr(schema, "LOCK_SECONDS", 0.02)
    monkeypatch.setattr(schema, "LOCK_TRIES", 2)
    async with other.transaction():
        await other.execute("SELECT FROM parley.sessions LIMIT 1")
        with pytest.raises(StoreUnavailable) as failed:
            await upgrade(postgres_url)
    assert "end the transaction that has locked it (pg_stat_activity)" in str(failed.value.cause)
    assert step.number - 1 == await other.fetchval("SELECT max(number) FROM parley.migrations")
    await other.close()


def _add_migration(monkeypatch: pytest.MonkeyPatch) -> Migration:
    """Adds a migration that locks the table of sessions."""
    sql = f"-- oldest-worker: {len(STEPS)}\nALTER TABLE parley.sessions ADD COLUMN new text"
    step = Migration(len(STEPS) + 1, sql)
    monkeypatch.setattr(schema, "migrations", lambda _package: [*STEPS, step])
    return step
