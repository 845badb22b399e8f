"""Tests of the statements of turns on tables that are distributed by session and account."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from parley.core.errors import KeyInUse, SessionBusy, StorageLimitExceeded, TurnLost
from parley.core.ports import SessionFilter, StorageLimits, Turn, TurnBegin, TurnEnd, Window
from parley.core.session_ids import chosen_key
from parley.stores.migrations import migrations
from parley.stores.postgres import PostgresStore, schema, upgrade
from parley.stores.postgres import database as postgres_database
from tests.contract.shards import Recording, distribute
from tests.contract.stores import (
    LEASE,
    Clock,
    all_messages,
    begin,
    charge,
    complete,
    converse,
    hold,
    message,
    settlement,
)
from tests.postgres import Server

DIGEST = bytes(32)
VERSION = len(migrations("parley.stores.postgres"))
_DATABASE = "shards"
_TABLES = """
SELECT relname, relkind, conname, pg_get_constraintdef(pg_constraint.oid)
FROM pg_class LEFT JOIN pg_constraint ON conrelid = pg_class.oid
WHERE relnamespace = 'parley'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1, 3
"""


@pytest.fixture
def clock() -> Clock:
    """The clock of the stores."""
    return Clock()


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Recording:
    """Records the statements of connections that the stores open."""
    recording, connect = Recording(), asyncpg.connect

    def recorded(*args: Any, **options: Any) -> Any:
        return connect(*args, **options, connection_class=recording.connection_class())

    monkeypatch.setattr(asyncpg, "connect", recorded)
    return recording


@pytest.fixture
async def database(postgres_server: Server) -> str:
    """A database with distributed tables and without rows."""
    url = await asyncio.to_thread(postgres_server.without_rows, _DATABASE)
    if (0, VERSION) == await upgrade(url):
        await asyncio.to_thread(distribute, postgres_server, _DATABASE)
    return url


async def _opened(database: str, clock: Clock, *, distributed: bool = True) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(database, clock=clock, distributed=distributed)
    yield store
    await store.close()


@pytest.fixture
async def store(database: str, clock: Clock, recording: Recording) -> AsyncIterator[PostgresStore]:
    """A worker's store."""
    del recording  # before the first connection
    async for one in _opened(database, clock):
        yield one


@pytest.fixture
async def second(database: str, clock: Clock, recording: Recording) -> AsyncIterator[PostgresStore]:
    """Another worker's store."""
    del recording
    async for one in _opened(database, clock):
        yield one


async def test_each_statement_of_a_turn_touches_one_shard(
    store: PostgresStore, second: PostgresStore, clock: Clock, recording: Recording
) -> None:
    """No statement of a turn touches two shards: new, repeated, limited, claimed, waiting, long, crashed and failed."""
    names = [f"s{number}" for number in range(6)]
    for round_number in range(3):  # turns that run at the same time
        await asyncio.gather(*[converse(store, name, "q", "a", new=round_number == 0) for name in names])
    turn = await begin(second, "s1", "read", window=Window(max_messages=2))
    with pytest.raises(SessionBusy):
        await begin(store, "s1", "busy")
    await asyncio.gather(store.wait_for_release("s1", 30), _later(complete(second, turn, "a", "b")))
    turns = [await begin(second, name, "q") for name in names]
    await second.renew_leases(turns, [], LEASE)
    clock.advance(LEASE)  # the worker has crashed
    turns[0] = await begin(store, "s0", "after the crash")
    await store.end_turn(turns[0], TurnEnd("incomplete", "failed"))
    await _limited(store)
    await _claimed(store)
    assert 2 == len(await all_messages(store, "claimed"))
    tables = {table for one in recording.statements for table in one.tables}
    assert {"sessions", "turns", "messages", "claims"} == tables
    assert [] == [one for one in recording.statements if not one.is_local]


async def test_ids_of_callers_and_searches(store: PostgresStore, second: PostgresStore, recording: Recording) -> None:
    """The first use of an id that a caller has chosen touches one shard; searches find the words of all shards."""
    keys = [chosen_key("ada", f"id {number}") for number in range(6)]
    begins = [TurnBegin("ada", "m", key, False, [message("user", f"n{key[-1]}")], may_create=True) for key in keys]
    for turn in await asyncio.gather(*[store.begin_turn(one, LEASE) for one in begins]):
        await complete(store, turn, "apple")
    assert [] == [one for one in recording.statements if not one.is_local]
    assert await second.index_sessions("ada")
    for query, expected in (("apple", 6), ("n3 app*", 1), ("pear", 0)):
        found, _ = await second.list_sessions("ada", SessionFilter(query=query), page_size=9, page_token=None)
        assert expected == len(found), query
    await second.delete_session("ada", keys[3])
    found, _ = await second.list_sessions("ada", SessionFilter(query="apple"), page_size=9, page_token=None)
    assert {"id 0", "id 1", "id 2", "id 4", "id 5"} == {session.id for session in found}


async def test_a_limit_of_storage_reads_all_shards(store: PostgresStore, recording: Recording) -> None:
    """Only the check of an account's limit of storage touches several shards; the limit holds exactly."""
    limits = StorageLimits(sessions=3)
    begins = [TurnBegin("cy", "m", f"s{number}", True, [message("user", "q")], storage=limits) for number in range(5)]
    turns = await asyncio.gather(*[store.begin_turn(one, LEASE) for one in begins], return_exceptions=True)
    assert 2 == sum(isinstance(turn, StorageLimitExceeded) for turn in turns)
    assert {"SELECT sessions, bytes FROM parley.lock_storage($1)"} == {
        one.statement for one in recording.statements if not one.is_local
    }


async def test_an_upgrade_distributes_what_it_adds(
    postgres_server: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that was distributed at an older version has the same tables after an upgrade as one of now."""
    older = await asyncio.to_thread(postgres_server.empty, "older_shards")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "migrations", lambda _package: migrations("parley.stores.postgres")[:11])
        patch.setattr(postgres_database, "steps", lambda: 11)
        await upgrade(older)
    await asyncio.to_thread(distribute, postgres_server, "older_shards", without=("turn_words", "cached_answers"))
    assert (11, VERSION) == await upgrade(older)
    expected, found = [
        await asyncio.to_thread(postgres_server.sql, _TABLES, name) for name in (_DATABASE, "older_shards")
    ]
    assert expected == found
    store = await PostgresStore.open(older, distributed=True)
    await converse(store, "s", "apple", "a", new=True)
    assert await store.index_sessions("ada")
    found_sessions, _ = await store.list_sessions("ada", SessionFilter(query="apple"), page_size=9, page_token=None)
    assert ["s"] == [session.id for session in found_sessions]
    await store.close()


async def test_batches_touch_several_shards(database: str, clock: Clock, recording: Recording) -> None:
    """Without the option, turns of several sessions share a statement, which touches several shards."""
    async for store in _opened(database, clock, distributed=False):
        await asyncio.gather(*[converse(store, f"s{number}", "q", "a", new=True) for number in range(8)])
    assert [] != [one for one in recording.statements if len(one.shards.get("session", ())) > 1]


async def test_a_lost_claim_writes_nothing(store: PostgresStore, clock: Clock) -> None:
    """The end of a turn and that of its claim are one transaction, although their statements are two."""
    claim = await store.claim("ada", "m", "k", DIGEST, LEASE)
    assert not isinstance(claim, bytes)
    turn = await begin(store, "s", "q", new=True)
    clock.advance(LEASE)
    await store.claim("ada", "m", "k", DIGEST, LEASE)
    with pytest.raises(TurnLost):
        await store.end_turn(turn, TurnEnd("completed", answer=[message("assistant", "a")], claim=claim, reply=b"r"))
    assert ["q"] == [text for text, *_ in await all_messages(store, "s")]


async def _later(work: Any) -> None:
    await asyncio.sleep(0.05)
    await work


async def _limited(store: PostgresStore) -> None:
    """Runs a turn of a caller with limits."""
    held = charge(10, subject="key:1", per_minute=1000)
    await hold(store, held, call_id="call")
    turn = await begin(store, "limited", "q", new=True)
    await store.end_turn(turn, TurnEnd("completed", settlement=settlement((held, 4), call_id="call")))
    left = await store.reserve([charge(0, subject="key:1", per_minute=1000)])
    assert (996,) == left.remaining


async def _claimed(store: PostgresStore) -> None:
    """Runs a turn with an idempotency key, and repeats its call."""
    claim = await store.claim("ada", "m", "k", DIGEST, LEASE)
    assert not isinstance(claim, bytes)
    with pytest.raises(KeyInUse):
        await store.claim("ada", "m", "k", DIGEST, LEASE)
    await store.renew_leases([], [claim], LEASE)
    turn: Turn = await begin(store, "claimed", "q", new=True)
    answer = [message("assistant", "a")]
    await store.end_turn(turn, TurnEnd("completed", answer=answer, claim=claim, reply=b"reply"))
    assert b"reply" == await store.claim("ada", "m", "k", DIGEST, LEASE)
