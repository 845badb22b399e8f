"""Tests of the number of connections of a worker, and of workers with fewer connections than they could use."""

import asyncio

from parley.stores.postgres import PostgresStore
from parley.stores.postgres.idle import IDLE_SECONDS
from tests.contract.stores import begin, complete, converse
from tests.pgbouncer import pooling
from tests.postgres import Server

_COUNT = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'parley'"


async def burst(store: PostgresStore, name: str) -> None:
    """Runs many turns concurrently."""
    await asyncio.gather(*[converse(store, f"{name}-{number}", "q", "a", new=True) for number in range(40)])


async def test_connections_of_a_worker(postgres_server: Server, postgres_url: str) -> None:
    """A worker opens up to `size` connections and a listener under load; afterwards it keeps one of each."""
    store = await PostgresStore.open(postgres_url, 4)
    turn = await begin(store, "s", "q", new=True)
    waiting = asyncio.create_task(store.wait_for_release("s", 30))
    working = asyncio.create_task(burst(store, "a"))
    seen = []
    while not working.done():
        seen.append(int(await asyncio.to_thread(postgres_server.sql, _COUNT)))
    await working
    await complete(store, turn, "a")
    await waiting
    assert 5 >= max(seen)
    async with asyncio.timeout(10 * IDLE_SECONDS):
        while "2" != await asyncio.to_thread(postgres_server.sql, _COUNT):
            await asyncio.sleep(0.1)
    await burst(store, "b")
    await store.close()


async def test_session_mode_with_a_small_pool(postgres_server: Server, postgres_url: str) -> None:
    """Workers share four connections: after a burst of one worker, another can use them."""
    del postgres_url
    with pooling(postgres_server, pool_mode="session", default_pool_size=4) as pooler:
        stores = [await PostgresStore.open(pooler.url("parley")) for _ in range(2)]
        for number, store in enumerate((stores[0], stores[1], stores[0])):
            await burst(store, f"s{number}")
        for store in stores:
            await store.close()


async def test_session_mode_under_load(postgres_server: Server, postgres_url: str) -> None:
    """Workers whose pools could each exhaust a pooler share its connections: calls wait, and none fails."""
    del postgres_url
    with pooling(postgres_server, pool_mode="session", default_pool_size=3) as pooler:
        stores = [await PostgresStore.open(pooler.url("parley")) for _ in range(2)]
        turns = [0, 0]

        async def talk(number: int, name: str) -> None:
            while min(turns) < 40:
                turns[number] += 1
                await converse(stores[number], f"{name}-{turns[number]}", "q", "a", new=True)

        first = [asyncio.create_task(talk(0, f"a{number}")) for number in range(20)]
        await asyncio.sleep(0.5)  # until the first worker uses all connections
        async with asyncio.timeout(60):
            await asyncio.gather(*first, *[talk(1, f"b{number}") for number in range(20)])
        for store in stores:
            await store.close()
