"""PostgreSQL that is unavailable, stopped, full or read-only."""

import asyncio

import pytest

from parley.core.errors import SessionBusy, StoreUnavailable, TurnLost
from parley.stores.postgres import PostgresStore
from tests.contract.postgres_outage.recovery import SHORT, back
from tests.contract.stores import all_messages, begin, complete, converse, key
from tests.keys import event
from tests.postgres import Server
from tests.processes import reserved_port


async def talk(store: PostgresStore, session: str, acknowledged: dict[str, int], stop: asyncio.Event) -> None:
    """Runs turn after turn and records the acknowledged ones. Errors must be those of the port."""
    number = 0
    new = True
    while not stop.is_set():
        try:
            turn = await begin(store, session, f"q {number + 1}", new=new)
            new = False
            await complete(store, turn, f"a {number + 1}")
            number += 1
            acknowledged[session] = turn.number
        except (StoreUnavailable, SessionBusy, TurnLost):
            if new:
                # The session may or may not have been created.
                session = f"{session}'"
            await asyncio.sleep(0.01)


async def check_acknowledged(store: PostgresStore, acknowledged: dict[str, int]) -> None:
    """Checks that every acknowledged turn is stored completely."""
    for session, last in acknowledged.items():
        states = {turn: state for _, turn, state, _ in await all_messages(store, session)}
        assert "completed" == states[last]


class TestUnavailable:
    """Tests of an unavailable server."""

    async def test_killed_and_started(self, server: Server, store: PostgresStore) -> None:
        """A server that is killed under load causes only StoreUnavailable and loses no acknowledged turn."""
        acknowledged: dict[str, int] = {}
        stop = asyncio.Event()
        talks = [asyncio.create_task(talk(store, f"s{number}", acknowledged, stop)) for number in range(8)]
        for _ in range(3):
            reported = sum(acknowledged.values())
            while sum(acknowledged.values()) < reported + 20:
                await asyncio.sleep(0.01)
            server.kill()
            with pytest.raises(StoreUnavailable):
                await begin(store, "t", "hi", new=True)
            server.start()
            await back(store)
        stop.set()
        await asyncio.gather(*talks)
        assert acknowledged
        await back(store)  # a call interrupted by the last kill may have marked the server as unavailable again
        await check_acknowledged(store, acknowledged)

    async def test_calls_fail_at_once_while_unavailable(self, server: Server, store: PostgresStore) -> None:
        """While the server is known to be unavailable, a call fails without an attempt."""
        server.kill()
        try:
            with pytest.raises(StoreUnavailable):
                await store.check()
            for _ in range(10):
                task = asyncio.create_task(store.check())
                await asyncio.sleep(0)
                assert isinstance(task.exception(), StoreUnavailable)
        finally:
            server.start()
        await back(store)

    async def test_hangs(self, server: Server, store: PostgresStore) -> None:
        """Calls to a hanging server fail after a timeout, waiting calls included; later the store recovers."""
        await converse(store, "s", "q", "a", new=True)
        server.freeze()
        try:
            results = await asyncio.gather(*[store.get_session("ada", "s") for _ in range(30)], return_exceptions=True)
            assert {StoreUnavailable} == {type(result) for result in results}
            with pytest.raises(StoreUnavailable):
                await store.check()
        finally:
            server.thaw()
        await back(store)
        assert 1 == (await store.get_session("ada", "s")).turn_count

    async def test_connections_cut(self, server: Server, store: PostgresStore) -> None:
        """Cut connections fail calls, but lose no acknowledged turn, and are opened again."""
        acknowledged: dict[str, int] = {}
        stop = asyncio.Event()
        talks = [asyncio.create_task(talk(store, f"s{number}", acknowledged, stop)) for number in range(8)]
        for _ in range(10):
            reported = sum(acknowledged.values())
            while sum(acknowledged.values()) < reported + 10:
                await asyncio.sleep(0.005)
            cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'parley'"
            await asyncio.to_thread(server.sql, cut)
        stop.set()
        await asyncio.gather(*talks)
        await back(store)
        await check_acknowledged(store, acknowledged)

    async def test_idle_connections_cut(self, server: Server, store: PostgresStore) -> None:
        """A read on a cut connection is repeated on another one."""
        await store.add_key(key(1), event)
        await asyncio.gather(*[store.check() for _ in range(8)])
        server.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'parley'")
        assert key(1) == await store.find_key(bytes([1]) * 32)

    async def test_no_room(self, server: Server, url: str) -> None:
        """The pool works with fewer connections than its size if the server accepts no more."""
        eager = await PostgresStore.open(url, 40, timeouts=SHORT)
        results = await asyncio.gather(*[begin(eager, f"s{number}", "q", new=True) for number in range(60)])
        assert 60 == len(results)
        other = PostgresStore(url, 4, timeouts=SHORT)
        await eager.close()
        await other.check()
        await other.close()

    async def test_read_only(self, server: Server, url: str, store: PostgresStore) -> None:
        """A server that has become a standby is unavailable with that cause until it accepts writes."""
        await converse(store, "s", "q", "a", new=True)
        server.sql("ALTER DATABASE parley SET default_transaction_read_only = on")
        server.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'parley'")
        with pytest.raises(StoreUnavailable):
            await begin(store, "t", "q", new=True)
        with pytest.raises(StoreUnavailable) as rejected:
            await PostgresStore.open(url, timeouts=SHORT)
        assert "it is read-only" in str(rejected.value.cause)
        server.sql("SET default_transaction_read_only = off; ALTER DATABASE parley RESET default_transaction_read_only")
        await back(store)
        assert 1 <= (await store.get_session("ada", "s")).turn_count

    async def test_nothing_listens(self) -> None:
        """Without a server the store does not open and names the address; a worker can start nevertheless."""
        port = reserved_port()
        nowhere = f"postgresql://parley:very-secret@127.0.0.1:{port}/parley"
        with pytest.raises(StoreUnavailable) as rejected:
            await PostgresStore.open(nowhere, timeouts=SHORT)
        assert str(rejected.value.cause).startswith(f"PostgreSQL at 127.0.0.1:{port}/parley: ")
        store = await PostgresStore.open(nowhere, timeouts=SHORT, allow_unavailable=True)
        with pytest.raises(StoreUnavailable):
            await store.check()
        await store.close()


class TestWaiting:
    """Tests of waiting for a session during an outage."""

    async def test_listener_that_was_cut(self, server: Server, store: PostgresStore, url: str) -> None:
        """A wait ends even if the listening connection was lost meanwhile."""
        other = await PostgresStore.open(url, timeouts=SHORT)
        turn = await begin(store, "s", "q", new=True)
        wait = asyncio.create_task(other.wait_for_release("s", 3600))
        while "0" == server.sql("SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'LISTEN %'"):
            await asyncio.sleep(0.02)
        server.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query ILIKE 'LISTEN %'")
        await complete(store, turn, "a")
        async with asyncio.timeout(60):
            await wait
        await other.close()


class TestSecrets:
    """Tests that the password is never shown."""

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://parley:very-secret@127.0.0.1:1/parley",
            "postgresql://parley:very-secret@[bad:1/parley",
            "postgresql://parley:very-secret@127.0.0.1:port/parley",
            "postgresql://parley:very/secret?x#very-secret@127.0.0.1:1/parley",
            "postgresql://127.0.0.1:1/parley?user=parley&password=very-secret",
            "postgresql://parley:very-secret@127.0.0.1:1/parley?sslmode=very-secret",
            "postgresql://very-secret",
        ],
    )
    async def test_no_password_in_errors(self, url: str) -> None:
        """Neither errors nor the representation of a store contain any part of a password."""
        with pytest.raises(StoreUnavailable) as rejected:
            await PostgresStore.open(url, timeouts=SHORT)
        shown = f"{rejected.value.cause} {rejected.value} {rejected.value!r} {PostgresStore(url)!r}"
        if url != "postgresql://very-secret":  # here it is the name of a host
            assert "very" not in shown

    async def test_wrong_password(self, server: Server) -> None:
        """A server that rejects the user or the database is unavailable, with its own message."""
        with pytest.raises(StoreUnavailable) as rejected:
            await PostgresStore.open(server.url("nowhere"), timeouts=SHORT)
        assert 'database "nowhere" does not exist' in str(rejected.value.cause)
