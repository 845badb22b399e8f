# ruff: noqa: SLF001 - what a connection is set to is seen on that connection alone
"""The schema in PostgreSQL: made, checked, upgraded; and what the connections are set to."""

import asyncio
import re

import pytest

from parley.core.errors import StoreMisconfigured, StoreUnavailable
from parley.core.ports import TurnEnd, Window
from parley.stores.postgres import PostgresStore, turns, upgrade
from parley.stores.postgres import sessions as session_statements
from tests.postgres import Server

pytest.register_assert_rewrite("tests.contract.stores")

from tests.contract.stores import (  # noqa: E402 - only now are its asserts rewritten
    begin,
    charge,
    complete,
    converse,
    key,
    receipt,
)

VERSION = 5


class TestSchema:
    """Making and checking the tables."""

    async def test_many_at_once(self, postgres_url: str) -> None:
        """Stores that open an empty database at the same time make its tables once."""
        stores = await asyncio.gather(*[PostgresStore.open(postgres_url) for _ in range(8)])
        await stores[0].add_key(key(1))
        assert [[key(1)]] * 8 == [await store.list_keys() for store in stores]
        for store in stores:
            await store.close()

    async def test_upgrades_at_once(self, postgres_url: str) -> None:
        """Of several upgrades at the same time one does the work, and the others find it done."""
        done = await asyncio.gather(*[upgrade(postgres_url) for _ in range(5)])
        assert [(0, VERSION), *[(VERSION, VERSION)] * 4] == sorted(done)

    async def test_beside_other_tables(self, postgres_server: Server, postgres_url: str) -> None:
        """Other tables in the database are no matter."""
        postgres_server.sql("CREATE TABLE IF NOT EXISTS public.sessions (theirs int)", "parley")
        store = await PostgresStore.open(postgres_url)
        await converse(store, "s", "q", "a", new=True)
        await store.close()
        assert "0" == postgres_server.sql("SELECT count(*) FROM public.sessions", "parley")

    async def test_somebody_elses_schema(self, postgres_server: Server, postgres_url: str) -> None:
        """A schema of the same name that is not ours is refused and left alone."""
        postgres_server.sql("CREATE SCHEMA parley", "parley")
        for attempt in (PostgresStore.open(postgres_url, allow_unavailable=True), upgrade(postgres_url)):
            with pytest.raises(StoreUnavailable) as rejected:
                await attempt
            assert "that Parley did not make" in str(rejected.value.cause)

    @pytest.mark.parametrize(
        ("change", "hint"),
        [
            ("INSERT INTO parley.migrations VALUES (99)", "install the Parley that made it"),
            (f"DELETE FROM parley.migrations WHERE number = {VERSION}", "run `parley db upgrade`"),
        ],
    )
    async def test_another_version(self, postgres_server: Server, postgres_url: str, change: str, hint: str) -> None:
        """An older or a newer schema is refused with what to do, also where the server may be away."""
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
        """What an older Parley has written is there after the upgrade; its turns have no receipt, the next one has."""
        await upgrade(postgres_url)
        store = await PostgresStore.open(postgres_url)
        await converse(store, "s", "q1", "a1", new=True)
        before = await store.list_messages("ada", "s", page_size=9, page_token=None)
        await store.close()
        older = (
            "DROP TRIGGER forget_replies ON parley.sessions; DROP FUNCTION parley.forget_replies; "
            "ALTER TABLE parley.sessions DROP COLUMN deleted; "
            "ALTER TABLE parley.turns DROP COLUMN receipt, DROP COLUMN bytes, DROP COLUMN reserved; "
            "CREATE INDEX turns_completed ON parley.turns (session_id, number) INCLUDE (messages, tokens, continues) "
            "WHERE state = 'completed'; DELETE FROM parley.migrations WHERE number > 1"
        )
        postgres_server.sql(older, "parley")
        assert (1, VERSION) == await upgrade(postgres_url)
        store = await PostgresStore.open(postgres_url)
        assert before == await store.list_messages("ada", "s", page_size=9, page_token=None)
        turn = await begin(store, "s", "q2")
        await store.end_turn(turn, TurnEnd("incomplete", "failed", receipt=receipt(1)))
        found, _ = await store.list_messages("ada", "s", page_size=9, page_token=None)
        assert [False, False, True] == [one.HasField("receipt") for one in found]
        assert receipt(1) == found[2].receipt
        await store.close()

    async def test_a_schema_in_ruins(self, postgres_server: Server, postgres_url: str) -> None:
        """An upgrade of tables without a version says so."""
        await upgrade(postgres_url)
        postgres_server.sql("DELETE FROM parley.migrations", "parley")
        with pytest.raises(StoreUnavailable) as rejected:
            await upgrade(postgres_url)
        assert "not whole" in str(rejected.value.cause)

    async def test_tables_that_vanish(self, postgres_server: Server, postgres_url: str) -> None:
        """Tables that vanish are an outage, and not an empty store in which no key is valid."""
        store = await PostgresStore.open(postgres_url)
        await store.add_key(key(1))
        postgres_server.sql("DROP SCHEMA parley CASCADE", "parley")
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.find_key(bytes([1]) * 32)
        await store.close()


class TestSettings:
    """What a connection is set to."""

    @pytest.mark.parametrize(("default", "used"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")])
    async def test_acknowledged_is_on_disk(
        self, postgres_server: Server, postgres_url: str, default: str, used: str
    ) -> None:
        """A database that does not wait for the disk is made to, for us; one that waits for more goes on to."""
        postgres_server.sql(f"ALTER DATABASE parley SET synchronous_commit = {default}")
        try:
            store = await PostgresStore.open(postgres_url)
            # Counting a limit does not wait for the disk; nothing after it may be the same.
            await store.reserve([])
            found = await store._pool.run(lambda db: db.fetchval("SHOW synchronous_commit"))
            await store.close()
        finally:
            postgres_server.sql("ALTER DATABASE parley RESET synchronous_commit")
        assert used == found

    async def test_limits_leave_it_on(self, postgres_url: str) -> None:
        """Counting limits does not wait for the disk, and the next statement of its connection does."""
        store = await PostgresStore.open(postgres_url, 2)
        await store.reserve([charge(1)])
        await store.settle([charge(1)])
        await store.wait_for_release("nowhere", 1)
        assert "on" == await store._pool.run(lambda db: db.fetchval("SHOW synchronous_commit"))
        await store.close()


class TestPooler:
    """A pooler in transaction mode gives each transaction any session of the server."""

    async def test_nothing_is_left_in_a_session(self, postgres_server: Server, postgres_url: str) -> None:
        """With `pooling: transaction` no statement, setting or listener outlives a call; waiting and limits work."""
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
        """Settings of another connection in a new session are the sign of one; the error says what to set."""
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
        """The server's words about a statement that it does not know become the same line."""
        store = await PostgresStore.open(postgres_url)
        with pytest.raises(StoreUnavailable) as rejected:
            await store._pool.run(lambda db: db.execute("DEALLOCATE nothing"))
        assert "`pooling: transaction`" in str(rejected.value.cause)
        await store.close()


class TestCost:
    """What a turn costs."""

    async def test_no_scan(self, postgres_server: Server, postgres_url: str) -> None:
        """No statement of a turn or a list has to read a table from end to end."""
        await upgrade(postgres_url)
        for module in (turns, session_statements):
            for name, statement in vars(module).items():
                if isinstance(statement, str) and "FROM parley." in statement:
                    explain = f"SET enable_seqscan = off; EXPLAIN (GENERIC_PLAN) {statement}"
                    plan = postgres_server.sql(explain, "parley")
                    assert [] == re.findall(r"Seq Scan on (?:sessions|turns|messages|claims)", plan), (name, plan)

    async def test_a_long_sessions_window(self, postgres_url: str) -> None:
        """A turn reads as many sizes as its window has turns, and not those of the whole past, in two round trips."""
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
        asked, answered = [f"q{number}" for number in range(50)], [f"a{number}" for number in range(50)]
        turn = await begin(store, "s", *asked, new=True)
        await complete(store, turn, *answered)
        found, _ = await store.list_messages("ada", "s", page_size=1000, page_token=None)
        assert asked + answered == [one.message.content.string_value for one in found]
        await store.close()
