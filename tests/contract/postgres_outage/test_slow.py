"""Slow calls of PostgreSQL, writes without a standby, and writes with an unknown outcome."""

import asyncio
import statistics
from contextlib import suppress

import pytest

from parley.core.errors import SessionBusy, StoreUnavailable, TurnLost
from parley.core.ports import TurnBegin
from parley.stores.postgres import PostgresStore
from tests.contract.postgres_outage.recovery import SHORT, back, without_its_standby
from tests.contract.stores import all_messages, begin, complete, converse, message
from tests.postgres import Server


class TestUnwritable:
    """Tests of a server whose reads work and whose writes hang, because a synchronous standby is missing."""

    async def test_writes_fail_at_once_and_reads_succeed(self, server: Server, store: PostgresStore) -> None:
        """After a write has timed out, later writes fail immediately, use no connections, and then recover."""
        await converse(store, "s", "q", "a", new=True)
        with without_its_standby(server):
            with pytest.raises(StoreUnavailable):
                await begin(store, "t", "q", new=True)
            await _wait_until_known(store)
            loop = asyncio.get_running_loop()
            seconds = []
            for _ in range(20):
                began = loop.time()
                with pytest.raises(StoreUnavailable) as rejected:
                    await begin(store, "t", "q", new=True)
                seconds.append(loop.time() - began)
                assert "synchronous standby" in str(rejected.value.cause)
                with pytest.raises(StoreUnavailable):
                    await store.check()
                assert 1 == (await store.get_session("ada", "s")).turn_count
                await asyncio.sleep(0.1)
            assert statistics.median(seconds) < 0.1
            assert max(seconds) < SHORT.command  # a write that reaches the server takes at least as long
            count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'parley'"
            assert int(server.sql(count)) <= 8
        await back(store)
        await converse(store, "s", "q2", "a2")

    async def test_an_idle_store_detects_hanging_writes(self, server: Server, store: PostgresStore) -> None:
        """The check fails if only reads work."""
        with without_its_standby(server), pytest.raises(StoreUnavailable):
            await store.check()
        await back(store)

    async def test_a_role_without_privileges_may_probe(self, server: Server, url: str) -> None:
        """The probe needs no privilege beyond those that Parley's tables need."""
        server.sql("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE parley TO plain")
        plain_text = await PostgresStore.open(url.replace("postgres@", "plain@"), timeouts=SHORT)
        await plain_text.check()
        await plain_text.close()
        server.empty()
        server.sql("REVOKE ALL ON DATABASE parley FROM plain; DROP ROLE plain")


class TestSlow:
    """Tests of single slow calls to a healthy server."""

    async def test_a_slow_call_fails_by_itself(self, server: Server, store: PostgresStore) -> None:
        """Calls during and after a slow call succeed."""
        await converse(store, "s", "q", "a", new=True)
        slow = asyncio.create_task(_sleep(store))
        for _ in range(60):
            await store.get_session("ada", "s")
            await store.check()
            await asyncio.sleep(0.05)
        with pytest.raises(StoreUnavailable):
            await slow
        await converse(store, "s", "q2", "a2")

    async def test_many_slow_calls(self, server: Server, store: PostgresStore) -> None:
        """Slow calls on all connections make others wait, and the server stays available."""
        await converse(store, "s", "q", "a", new=True)
        slow = [asyncio.create_task(_sleep(store)) for _ in range(8)]
        assert {StoreUnavailable} == {type(one) for one in await asyncio.gather(*slow, return_exceptions=True)}
        for number in range(40):
            await store.get_session("ada", "s")
            await begin(store, f"t{number}", "q", new=True)
            await asyncio.sleep(0.05)


async def _wait_until_known(store: PostgresStore) -> None:
    """Waits until the store has detected that writes hang and reads do not."""
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreUnavailable):
                await store.get_session("ada", "s")
                if not store._pool.is_writable:  # noqa: SLF001 - read without a call that would wait
                    return
            await asyncio.sleep(0.02)


async def _sleep(store: PostgresStore) -> None:
    """Runs a call that exceeds the timeout."""
    await store._pool.run(lambda db: db.execute("SELECT pg_sleep(30)"))  # noqa: SLF001 - no method of a store is slow enough


class TestUnknownOutcome:
    """Tests of commits with an unknown result."""

    async def test_end_whose_answer_is_lost(self, server: Server, store: PostgresStore, url: str) -> None:
        """The end of a turn without an answer raises an error, and is afterwards stored completely or not at all."""
        other = await PostgresStore.open(url, timeouts=SHORT)
        turn = await begin(store, "s", "q", new=True)
        server.freeze()
        with pytest.raises(StoreUnavailable):
            await complete(store, turn, "a")
        server.thaw()
        await back(other)
        states = {state for _, _, state, _ in await all_messages(other, "s")}
        assert states in ({"completed"}, {"in_progress"})
        await other.close()

    async def test_stopped_past_the_lease(self, store: PostgresStore, url: str) -> None:
        """A worker whose lease was taken over by the database's clock writes nothing."""
        turn = await store.begin_turn(TurnBegin("ada", "m", "s", new=True, messages=[message("user", "q")]), 0.001)
        while True:
            with suppress(SessionBusy):
                following = await begin(store, "s", "q2")
                break
        with pytest.raises(TurnLost):
            await complete(store, turn, "late")
        await complete(store, following, "in time")
