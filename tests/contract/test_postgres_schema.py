# ruff: noqa: SLF001 - the settings of a connection are visible on that connection only
"""Tests of the PostgreSQL schema and of the settings of connections."""

import asyncio
import re

import pytest

from parley.core.errors import StoreMisconfigured, StoreUnavailable
from parley.core.ports import SessionFilter, TurnEnd, Window
from parley.stores.migrations import migrations
from parley.stores.postgres import PostgresStore, turn_statements, upgrade
from parley.stores.postgres import sessions as session_statements
from tests.contract.stores import (
    begin,
    charge,
    complete,
    converse,
    key,
    receipt,
    settlement,
)
from tests.keys import event
from tests.postgres import Server

STEPS = migrations("parley.stores.postgres")
VERSION = len(STEPS)


class TestSchema:
    """Tests of the creation and the check of the tables."""

    async def test_many_at_once(self, postgres_url: str) -> None:
        """Stores that open an empty database at the same time create its tables once."""
        stores = await asyncio.gather(*[PostgresStore.open(postgres_url) for _ in range(8)])
        await stores[0].add_key(key(1), event)
        assert [[key(1)]] * 8 == [(await store.list_keys(page_size=9))[0] for store in stores]
        for store in stores:
            await store.close()

    async def test_upgrades_at_once(self, postgres_url: str) -> None:
        """Of concurrent upgrades one applies the migrations."""
        done = await asyncio.gather(*[upgrade(postgres_url) for _ in range(5)])
        assert [(0, VERSION), *[(VERSION, VERSION)] * 4] == sorted(done)

    async def test_other_tables_in_the_database(self, postgres_server: Server, postgres_url: str) -> None:
        """Other tables in the database do not matter."""
        postgres_server.sql("CREATE TABLE IF NOT EXISTS public.sessions (theirs int)", "parley")
        store = await PostgresStore.open(postgres_url)
        await converse(store, "s", "q", "a", new=True)
        await store.close()
        assert "0" == postgres_server.sql("SELECT count(*) FROM public.sessions", "parley")

    async def test_the_schema_of_another_program(self, postgres_server: Server, postgres_url: str) -> None:
        """A schema of the same name from another program is rejected and remains unchanged."""
        postgres_server.sql("CREATE SCHEMA parley", "parley")
        for attempt in (PostgresStore.open(postgres_url), upgrade(postgres_url)):
            with pytest.raises(StoreUnavailable) as rejected:
                await attempt
            assert "that Parley did not create" in str(rejected.value.cause)

    async def test_a_lost_schema(self, postgres_server: Server, postgres_url: str) -> None:
        """A schema that was removed is an outage; neither a running nor a new worker, nor a command creates it."""
        identity = await (await PostgresStore.open(postgres_url)).identity()
        worker = await PostgresStore.open(postgres_url, allow_unavailable=True)
        await worker.check()
        postgres_server.sql("DROP SCHEMA parley CASCADE", "parley")
        later = await PostgresStore.open(postgres_url, allow_unavailable=True, identity=identity)
        for store in (worker, later):
            with pytest.raises(StoreUnavailable):
                await store.find_key(bytes(32))
        with pytest.raises(StoreUnavailable) as rejected:
            await PostgresStore.open(postgres_url, identity=identity)
        assert "it has no tables of Parley; restore them, or run `parley db upgrade`" in str(rejected.value.cause)
        assert "0" == postgres_server.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'parley'", "parley")
        await upgrade(postgres_url)
        with pytest.raises(StoreUnavailable) as rejected:
            await PostgresStore.open(postgres_url, identity=identity)
        assert "its tables are others than before" in str(rejected.value.cause)
        for store in (worker, later):
            with pytest.raises(StoreUnavailable):
                await store.find_key(bytes(32))
            await store.close()

    @pytest.mark.parametrize(
        ("change", "hint"),
        [
            ("INSERT INTO parley.migrations VALUES (99)", "install the one that upgraded the schema"),
            (f"DELETE FROM parley.migrations WHERE number = {VERSION}", "run `parley db upgrade`"),
        ],
    )
    async def test_another_version(self, postgres_server: Server, postgres_url: str, change: str, hint: str) -> None:
        """An older or a newer schema is rejected with the remedy, even with `allow_unavailable`."""
        await upgrade(postgres_url)
        postgres_server.sql(change, "parley")
        with pytest.raises(StoreUnavailable) as rejected:
            await PostgresStore.open(postgres_url, allow_unavailable=True)
        assert hint in str(rejected.value.cause)
        store = PostgresStore(postgres_url)
        with pytest.raises(StoreUnavailable) as rejected:
            await store.check()
        assert hint in str(rejected.value.cause)
        await store.close()

    async def test_an_older_version(self, postgres_server: Server, postgres_url: str) -> None:
        """Data of an older version remain after the upgrade; older turns have no receipt, the next one has one."""
        await upgrade(postgres_url)
        store = await PostgresStore.open(postgres_url)
        await converse(store, "s", "q1", "a1", new=True)
        before = await store.list_messages("ada", "s", page_size=9, page_token=None)
        await store.close()
        _downgrade(postgres_server)
        assert (1, VERSION) == await upgrade(postgres_url)
        store = await PostgresStore.open(postgres_url)
        assert before == await store.list_messages("ada", "s", page_size=9, page_token=None)
        turn = await begin(store, "s", "q2")
        await store.end_turn(turn, TurnEnd("incomplete", "failed", receipt=receipt(1)))
        found, _ = await store.list_messages("ada", "s", page_size=9, page_token=None)
        assert [False, False, True] == [one.HasField("receipt") for one in found]
        assert receipt(1) == found[2].receipt
        await store.close()

    async def test_an_incomplete_schema(self, postgres_server: Server, postgres_url: str) -> None:
        """An upgrade of tables without a version is rejected."""
        await upgrade(postgres_url)
        postgres_server.sql("DELETE FROM parley.migrations", "parley")
        with pytest.raises(StoreUnavailable) as rejected:
            await upgrade(postgres_url)
        assert "is incomplete" in str(rejected.value.cause)

    async def test_missing_tables(self, postgres_server: Server, postgres_url: str) -> None:
        """Missing tables are an outage, not an empty store in which no key is valid."""
        store = await PostgresStore.open(postgres_url)
        await store.add_key(key(1), event)
        postgres_server.sql("DROP SCHEMA parley CASCADE", "parley")
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.find_key(bytes([1]) * 32)
        await store.close()


def _downgrade(server: Server) -> None:
    """Replaces the schema by that of version 1, with the rows of the sessions."""
    server.sql("ALTER SCHEMA parley RENAME TO saved", "parley")
    server.sql(
        "CREATE SCHEMA parley; CREATE TABLE parley.migrations AS SELECT * FROM saved.migrations WHERE number = 1",
        "parley",
    )
    server.sql(STEPS[0].sql, "parley")
    for table in ("sessions", "turns", "messages"):
        names = "SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns"
        columns = server.sql(f"{names} WHERE table_schema = 'parley' AND table_name = '{table}'", "parley")
        server.sql(f"INSERT INTO parley.{table} ({columns}) SELECT {columns} FROM saved.{table}", "parley")


class TestSettings:
    """Tests of the settings of connections."""

    @pytest.mark.parametrize(("default", "used"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")])
    async def test_acknowledged_is_on_disk(
        self, postgres_server: Server, postgres_url: str, default: str, used: str
    ) -> None:
        """A weaker default of `synchronous_commit` is overridden, and a stronger one is kept."""
        postgres_server.sql(f"ALTER DATABASE parley SET synchronous_commit = {default}")
        try:
            store = await PostgresStore.open(postgres_url)
            # A reservation does not wait for the disk; the following statement must.
            await store.reserve([])
            found = await store._pool.run(lambda db: db.fetchval("SHOW synchronous_commit"))
            await store.close()
        finally:
            postgres_server.sql("ALTER DATABASE parley RESET synchronous_commit")
        assert used == found

    async def test_reservations_do_not_change_later_commits(self, postgres_url: str) -> None:
        """A reservation does not wait for the disk, and the next statement of its connection does."""
        store = await PostgresStore.open(postgres_url, 2)
        await store.reserve([charge(1)])
        await store.settle(settlement((charge(1), 2)))
        await store.wait_for_release("nowhere", 1)
        assert "on" == await store._pool.run(lambda db: db.fetchval("SHOW synchronous_commit"))
        await store.close()


class TestPooler:
    """Tests of a pooler in transaction mode, which assigns a server session to each transaction."""

    async def test_nothing_is_left_in_a_session(self, postgres_server: Server, postgres_url: str) -> None:
        """With `pooling: transaction` no statement, setting or listener outlasts a call; waiting and limits work."""
        store = await PostgresStore.open(postgres_url, 2, pooled=True)
        await converse(store, "s", "q", "a", new=True)
        await store.reserve([charge(1)])
        await begin(store, "s", "q2")
        await store.wait_for_release("s", 0.1)
        await store.reap(session_age=3600, claim_age=3600, limit=9)
        idle = store._pool._idle.pop()
        left = "SELECT (SELECT count(*) FROM pg_prepared_statements), current_setting('jit'), pg_listening_channels()"
        assert [] == await idle.fetch(left)
        assert "0 on auto off" == " ".join(
            [
                str(await idle.fetchval("SELECT count(*) FROM pg_prepared_statements")),
                await idle.fetchval("SHOW enable_seqscan"),
                await idle.fetchval("SHOW plan_cache_mode"),
                await idle.fetchval("SELECT coalesce(nullif(current_setting('parley.session', true), ''), 'off')"),
            ]
        )
        store._pool._idle.push(idle)
        assert "on" == await store._pool.run(lambda db: db.fetchval("SHOW synchronous_commit"))
        assert "force_generic_plan" == await store._pool.run(lambda db: db.fetchval("SHOW plan_cache_mode"))
        await store.close()

    async def test_a_pooler_that_is_not_configured(self, postgres_server: Server, postgres_url: str) -> None:
        """A setting of another connection in a new session reveals a pooler; the error names the setting."""
        await upgrade(postgres_url)
        postgres_server.sql("ALTER DATABASE parley SET parley.session = 'on'")
        try:
            for attempt in (PostgresStore.open(postgres_url), upgrade(postgres_url)):
                with pytest.raises(StoreMisconfigured) as rejected:
                    await attempt
                assert "`pooling: transaction`" in str(rejected.value.cause)
            store = await PostgresStore.open(postgres_url, pooled=True)
            await store.check()
            await store.close()
        finally:
            postgres_server.sql("ALTER DATABASE parley RESET parley.session")

    async def test_a_lost_statement(self, postgres_url: str) -> None:
        """The server's error about an unknown statement becomes the same message."""
        store = await PostgresStore.open(postgres_url)
        with pytest.raises(StoreUnavailable) as rejected:
            await store._pool.run(lambda db: db.execute("DEALLOCATE nothing"))
        assert "`pooling: transaction`" in str(rejected.value.cause)
        await store.close()


class TestCost:
    """Tests of the cost of turns."""

    async def test_no_scan(self, postgres_server: Server, postgres_url: str) -> None:
        """No statement of a turn or a list scans a table."""
        await upgrade(postgres_url)
        for module in (turn_statements, session_statements):
            for name, statement in vars(module).items():
                if isinstance(statement, str) and "FROM parley." in statement:
                    explain = f"SET enable_seqscan = off; EXPLAIN (GENERIC_PLAN) {statement}"
                    plan = postgres_server.sql(explain, "parley")
                    assert [] == re.findall(r"Seq Scan on (?:sessions|turns|messages|claims)", plan), (name, plan)

    async def test_a_search_reads_the_index_of_words(self, postgres_server: Server, postgres_url: str) -> None:
        """A search does not read the words of all accounts, which the planner takes for cheap."""
        store = await PostgresStore.open(postgres_url)
        await converse(store, "s", "apple", "a", new=True)
        assert await store.index_sessions("ada")
        postgres_server.sql("ANALYZE parley.turn_words", "parley")  # one page is read faster than the index
        scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'turn_words_by_word'"
        for _ in range(600):  # the server counts with a delay
            listed, _ = await store.list_sessions("ada", SessionFilter(query="apple"), page_size=9, page_token=None)
            if postgres_server.sql(scans, "parley") != "0":
                break
            await asyncio.sleep(0.1)
        else:
            pytest.fail("no search used the index")
        assert 1 == len(listed)
        await store.close()

    async def test_a_long_sessions_window(self, postgres_url: str) -> None:
        """A turn reads only the sizes of the turns within its window, in two round trips."""
        store = await PostgresStore.open(postgres_url)
        for number in range(200):
            await converse(store, "s", f"q{number}", f"a{number}", new=number == 0)
        for most, expected in ((4, 4), (300, 300), (1000, 400)):
            turn = await begin(store, "s", "and?", window=Window(max_messages=most))
            assert expected == len(turn.history)
            await store.end_turn(turn, TurnEnd("incomplete", "failed"))
        await store.close()

    async def test_answers_are_in_order(self, postgres_url: str) -> None:
        """Many messages of one turn keep their order."""
        store = await PostgresStore.open(postgres_url)
        questions, answers = [f"q{number}" for number in range(50)], [f"a{number}" for number in range(50)]
        turn = await begin(store, "s", *questions, new=True)
        await complete(store, turn, *answers)
        found, _ = await store.list_messages("ada", "s", page_size=1000, page_token=None)
        assert questions + answers == [one.message.content.string_value for one in found]
        await store.close()
