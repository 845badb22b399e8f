"""Tests of two versions of Parley on one database: upgrades of the schema while older workers run."""

import asyncio
import time

import pytest

from parley.core.errors import StoreUnavailable
from parley.stores.migrations import Migration, migrations
from parley.stores.postgres import PostgresStore, database, pool, schema, upgrade
from tests.contract.stores import converse, texts
from tests.postgres import Server
from tests.processes import PATIENCE

STEPS = migrations("parley.stores.postgres")
NOW = len(STEPS)
ADDITION = f"-- oldest-worker: {NOW}\nALTER TABLE parley.sessions ADD COLUMN colour text"
REMOVAL = "ALTER TABLE parley.sessions DROP COLUMN colour"


async def _upgrade_to(url: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> tuple[int, int]:
    """Upgrades as a later Parley does, with further migrations."""
    later = [Migration(NOW + number, sql) for number, sql in enumerate(more, 1)]
    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrations", lambda _package: [*STEPS, *later])
        patch.setattr(database, "steps", lambda: NOW + len(later))
        return await upgrade(url)


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
