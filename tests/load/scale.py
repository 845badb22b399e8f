"""PostgreSQL with many rows: `make scale` fills a database and prints what the store's statements read, and the space.

The rows are made by `generate_series`, in the shapes that the store writes: sessions of 10 turns with a question of 60
characters and an answer of 220 each. `MESSAGES=100000000` needs 60 GB and hours; the default takes some minutes.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from importlib import import_module
from pkgutil import iter_modules

import parley.stores.postgres
from parley.core.ports import TurnBegin, TurnEnd, Window
from parley.stores.postgres import PostgresStore, upgrade
from parley.v1.message_pb2 import Message
from tests.postgres import Server, serving

TURNS = 10
MESSAGES_A_TURN = 2
SESSIONS_AN_ACCOUNT = 1000
GROWING = ("sessions", "turns", "messages", "claims", "usage", "audit", "storage", "buckets", "api_keys", "accounts")
"""The tables that grow with calls, accounts or time."""
_QUESTION, _ANSWER = Message(role="user"), Message(role="assistant")
_QUESTION.content.string_value, _ANSWER.content.string_value = "q" * 60, "a" * 220
_TEXTS = (_QUESTION.SerializeToString(), _ANSWER.SerializeToString())
_TURN_BYTES = sum(map(len, _TEXTS))
_FILL = f"""
SET synchronous_commit = off;
INSERT INTO parley.sessions
  (id, account, model, created, updated, turn_count, completed_messages, lease_fence, bytes)
SELECT md5(n::text), 'account-' || n / {SESSIONS_AN_ACCOUNT}, 'm', n, n, {TURNS}, {TURNS * MESSAGES_A_TURN}, {TURNS},
  {TURNS * _TURN_BYTES}
FROM generate_series(%(first)s, %(last)s) AS n;
INSERT INTO parley.turns
  (session_id, number, state, created, asked, messages, tokens, bytes, continues, usage, receipt)
SELECT md5(n::text), turn, 'completed', n, 1, 2, 80, {_TURN_BYTES}, false, decode(md5(''), 'hex'),
  decode(repeat(md5(''), 4), 'hex')
FROM generate_series(%(first)s, %(last)s) AS n, generate_series(1, {TURNS}) AS turn;
INSERT INTO parley.messages (session_id, turn, position, message, system)
SELECT md5(n::text), turn, position, message, false
FROM generate_series(%(first)s, %(last)s) AS n, generate_series(1, {TURNS}) AS turn,
  (VALUES (0, '\\x{_TEXTS[0].hex()}'::bytea), (1, '\\x{_TEXTS[1].hex()}')) AS part (position, message);
INSERT INTO parley.claims (account, method, key, digest, updated, session_id, reply)
SELECT 'account-' || n / {SESSIONS_AN_ACCOUNT}, 'm', md5(n::text), decode(md5(''), 'hex'), n, md5(n::text), ''
FROM generate_series(%(first)s, %(last)s) AS n WHERE n %% 10 = 0;
INSERT INTO parley.usage
SELECT 'account-' || n, day, 'key', 'm', 't', 1, 0, 1, 1, 1, 1, 1, 1
FROM generate_series(%(first)s / 100, %(last)s / 100) AS n, generate_series(1, 10) AS day ON CONFLICT DO NOTHING;
"""
_BATCH = 5_000  # sessions; the time of a statement is limited
# Those of the store's connections.
_SETTINGS = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
# Parts of statements, and statements of the schema.
_NO_STATEMENTS = ("database.", "schema.", "keys._KEYS", "turn_statements._")
_SPACE = """
SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
WHERE relnamespace = 'parley'::regnamespace AND relkind = 'r' ORDER BY 2 DESC
"""


def fill(server: Server, messages: int, database: str = "parley") -> None:
    """Adds sessions with this number of messages in all, and analyzes the tables."""
    sessions = messages // (TURNS * MESSAGES_A_TURN)
    for first in range(0, sessions, _BATCH):
        server.sql(_FILL % {"first": first, "last": min(first + _BATCH, sessions) - 1}, database)
        sys.stderr.write(f"{min(first + _BATCH, sessions)} of {sessions} sessions\n")
    server.sql("VACUUM ANALYZE", database)


def statements() -> dict[str, str]:
    """Returns the statements of the store by name."""
    found = {}
    for module in iter_modules(parley.stores.postgres.__path__):
        for name, value in vars(import_module(f"parley.stores.postgres.{module.name}")).items():
            if isinstance(value, str) and re.match(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b", value):
                found[f"{module.name}.{name}"] = value
    return {name: value for name, value in found.items() if "parley." in value and not name.startswith(_NO_STATEMENTS)}


def scans(server: Server, database: str = "parley") -> dict[str, set[str]]:
    """Returns the growing tables that the plans of statements read as a whole, by statement."""
    explained = [f"SELECT '=== {name}'; EXPLAIN (GENERIC_PLAN) {statement}" for name, statement in statements().items()]
    plans = server.sql("; ".join((_SETTINGS, *explained)), database).split("=== ")[1:]
    tables = {plan.partition("\n")[0]: set(re.findall(r"Seq Scan on (\w+)", plan)) for plan in plans}
    assert tables.keys() == statements().keys()
    return {name: found for name, read in tables.items() if (found := read.intersection(GROWING))}


async def turns(url: str, count: int) -> tuple[float, float]:
    """Runs turns in sessions that were filled; returns the milliseconds of each: median, and 99th percentile."""
    import hashlib

    store, took = await PostgresStore.open(url), []
    for number in range(count):
        session = hashlib.md5(str(number).encode()).hexdigest()
        begin = TurnBegin(f"account-{number // SESSIONS_AN_ACCOUNT}", "m", session, False, [Message()], Window())
        started = time.perf_counter()
        turn = await store.begin_turn(begin, 60.0)
        await store.end_turn(turn, TurnEnd("completed", answer=[Message()]))
        took.append((time.perf_counter() - started) * 1e3)
    await store.close()
    took.sort()
    return round(took[count // 2], 2), round(took[count * 99 // 100], 2)


def main() -> None:
    """Fills a database and prints the figures as one JSON line."""
    parser = argparse.ArgumentParser(prog="make scale", description=__doc__)
    parser.add_argument("--messages", type=int, default=2_000_000)
    messages = parser.parse_args().messages
    with serving("max_wal_size=8GB", "shared_buffers=512MB") as server:
        url = server.empty()
        asyncio.run(upgrade(url))
        started = time.monotonic()
        fill(server, messages)
        seconds = time.monotonic() - started
        found = {name: sorted(tables) for name, tables in scans(server).items()}
        space = [row.split("|") for row in server.sql(_SPACE, "parley").splitlines()]
        bytes_ = {
            table: round((int(rows) + int(index)) / messages, 1) for table, rows, index in space if int(rows) > 10**6
        }
        median, p99 = asyncio.run(turns(url, min(1000, messages // 40)))
        figures = {"messages": messages, "fill_seconds": round(seconds), "scans": found, "bytes_a_message": bytes_}
        sys.stdout.write(json.dumps({**figures, "turn_ms_p50": median, "turn_ms_p99": p99}) + "\n")


if __name__ == "__main__":
    main()
