"""Copies an SQLite file to a PostgreSQL database. An interrupted copy can be started again.

Sessions are copied in batches, each in one transaction, so that the target never contains part of a session.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import apsw
import asyncpg

from parley.core.errors import StoreUnavailable
from parley.core.ports.usage import COUNTS
from parley.stores import usage
from parley.stores.postgres import schema
from parley.stores.postgres.database import Connection, Database, Timeouts, outage
from parley.stores.purging import PurgeCursor
from parley.stores.sqlite.clock import FileClock
from parley.stores.sqlite.database import Database as File
from parley.stores.sqlite.deletion import find_deleted, purge_batch
from parley.stores.sqlite.limits import end_all

Progress: TypeAlias = Callable[[int, int], None]
"""Receives the number of copied sessions and the number of all sessions."""
Row: TypeAlias = tuple[Any, ...]

_TIMEOUTS = Timeouts(connect=10.0, command=3600.0)
_BATCH = 100
_LOCK = "SELECT pg_try_advisory_lock(7012640071583062)"

_STATE = "id, account, created, turn_count, lease_fence, completed_messages, lease_expires"
_SESSION = f"{_STATE}, model, updated, forked_from, bytes, title, labels, folded_title"
_TURN = (
    "session_id, number, state, reason, created, asked, messages, tokens, bytes, continues != 0 AS continues, "
    "metadata, usage, receipt"
)
_MESSAGE = "session_id, turn, position, message, system != 0 AS system"
_TARGET_STATE = f"SELECT {_STATE} FROM parley.sessions WHERE id = ANY($1)"
_ACCOUNT = """
INSERT INTO parley.accounts (name, plan, limits, suspended) VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO UPDATE
SET plan = excluded.plan, limits = excluded.limits, suspended = excluded.suspended
"""
_KEY = """
INSERT INTO parley.api_keys AS known (
  id, name, account, created, models, scopes, digest, expires, revoked, limits, previous_digest, previous_expires
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (id) DO UPDATE SET
  name = excluded.name, models = excluded.models, scopes = excluded.scopes, digest = excluded.digest,
  expires = excluded.expires, revoked = coalesce(known.revoked, excluded.revoked), limits = excluded.limits,
  previous_digest = excluded.previous_digest, previous_expires = excluded.previous_expires
"""
_EVENT = """
INSERT INTO parley.audit (id, time, actor, source, method, subject, changes) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (id) DO NOTHING
"""
_CLAIM = """
INSERT INTO parley.claims AS claim (account, method, key, digest, updated, session_id, reply)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (account, method, key) DO UPDATE
-- A newer copy has replaced the session, which removed the reply.
SET session_id = excluded.session_id, reply = excluded.reply
WHERE claim.reply IS NULL AND claim.lease_expires IS NULL AND claim.digest = excluded.digest
"""
_BUCKET = """
INSERT INTO parley.buckets AS known (subject, kind, used, updated, per_minute) VALUES ($1, $2, $3, $4, 0)
ON CONFLICT (subject, kind) DO UPDATE SET used = excluded.used, updated = excluded.updated
WHERE known.updated < excluded.updated
"""
_USAGE = f"""
INSERT INTO parley.usage AS known ({", ".join((*usage.KEYS, *COUNTS))})
VALUES ({", ".join(f"${number + 1}" for number in range(len(usage.KEYS) + len(COUNTS)))})
ON CONFLICT ({", ".join(usage.KEYS)}) DO UPDATE
SET {", ".join(f"{name} = greatest(known.{name}, excluded.{name})" for name in COUNTS)}
"""
_ALERT = """
INSERT INTO parley.alerts (id, subject, name, period, threshold, payload, tries, created, due)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING
"""
# Counted in both databases. The target may have further accounts, keys, replies and buckets: those are counted by key.
_ALL = {
    "sessions": "SELECT count(*) FROM {}sessions",
    "turns": "SELECT count(*) FROM {}turns",
    "messages": "SELECT count(*) FROM {}messages",
    "bytes of messages": "SELECT CAST(coalesce(sum(length(message)), 0) AS bigint) FROM {}messages",
}
_BY_KEY = {
    "accounts": ("SELECT name FROM accounts", "SELECT count(*) FROM parley.accounts WHERE name = ANY($1)"),
    "keys": ("SELECT id FROM api_keys", "SELECT count(*) FROM parley.api_keys WHERE id = ANY($1)"),
    "audit events": ("SELECT id FROM audit", "SELECT count(*) FROM parley.audit WHERE id = ANY($1)"),
    "stored replies": (
        "SELECT json_array(account, method, key) FROM claims WHERE lease_expires IS NULL",
        """SELECT count(*) FROM parley.claims JOIN unnest($1::json[]) AS place
        ON account = place->>0 AND method = place->>1 AND key = place->>2""",
    ),
    "usage rows": (
        f"SELECT json_array({', '.join(usage.KEYS)}) FROM usage",
        """SELECT count(*) FROM parley.usage JOIN unnest($1::json[]) AS place
        ON account = place->>0 AND day = (place->>1)::int AND key = place->>2 AND model = place->>3
        AND target = place->>4""",
    ),
    "alerts": ("SELECT id FROM alerts", "SELECT count(*) FROM parley.alerts WHERE id = ANY($1)"),
    "buckets": (
        "SELECT json_array(subject, kind) FROM buckets",
        """SELECT count(*) FROM parley.buckets JOIN unnest($1::json[]) AS place
        ON subject = place->>0 AND kind = place->>1""",
    ),
}


class CopyError(Exception):
    """The copy is impossible or incomplete. The text states the reason."""


@dataclass(frozen=True, slots=True)
class Count:
    """The number of rows of one kind.

    Attributes:
        name: The kind, in the plural.
        source: The rows in the file.
        target: The same rows in the database.
    """

    name: str
    source: int
    target: int


async def copy(source: Path, url: str, progress: Progress) -> list[Count]:
    """Copies the rows that are missing in the target, then compares the counts.

    Args:
        source: The SQLite file.
        url: The URL of the PostgreSQL database.
        progress: Receives the progress after each batch.

    Raises:
        CopyError: The copy is impossible or incomplete.
        StoreUnavailable: A database cannot be reached.
    """
    database = Database(url, _TIMEOUTS)
    with _reading(source) as file:
        await schema.ensure(database)
        connection = await database.connect()
        try:
            return await _copy(file, connection, progress)
        except Exception as error:
            if (cause := outage(error)) is not None and not isinstance(error, StoreUnavailable):
                raise database.unavailable(cause) from error
            if isinstance(error, asyncpg.PostgresError | asyncpg.DataError):
                raise CopyError(f"{database.name} rejects a row: {' '.join(str(error).split())}") from error
            raise
        finally:
            connection.terminate()


@contextmanager
def _reading(source: Path) -> Iterator[apsw.Connection]:
    """Opens the file in one read transaction. Raises CopyError if it is in use or changes during the copy."""
    if not source.is_file():
        raise CopyError(f"{source} is not a file; name the SQLite file to copy, parley.db in the state folder")
    file = File(source)
    try:
        with file.use() as db:
            version = db.pragma("data_version")
            db.execute("BEGIN")
            _require_idle(db, source)
            _purge(db)
            end_all(db)
            yield db
            db.execute("COMMIT")
            if db.pragma("data_version") != version:
                raise CopyError(f"{source} was written to while it was copied; stop Parley and copy again")
    finally:
        file.close()


def _require_idle(db: apsw.Connection, source: Path) -> None:
    """Raises CopyError if a running worker holds a turn or a key."""
    now = FileClock().lease_time(db)
    for table in ("sessions", "claims", "running_calls"):
        if _one(db, f"SELECT count(*) FROM {table} WHERE lease_expires > ?", now):
            raise CopyError(f"{source} has turns in progress: stop Parley, wait 10 s and copy again")


def _purge(db: apsw.Connection) -> None:
    """Removes the remaining rows of deleted sessions, which are not copied."""
    while (session_id := find_deleted(db)) is not None:
        cursor: PurgeCursor | None = PurgeCursor()
        while cursor is not None:
            cursor = purge_batch(db, session_id, cursor)


async def _copy(db: apsw.Connection, target: Connection, progress: Progress) -> list[Count]:
    if not await target.fetchval(_LOCK):
        raise CopyError("another copy into this database is running; wait for it")
    await _require_own_sessions(db, target)
    await _copy_keys(db, target)
    total, done = _one(db, "SELECT count(*) FROM sessions"), 0
    progress(done, total)
    rows = iter(db.execute(f"SELECT {_STATE} FROM sessions ORDER BY id"))
    while batch := {row[0]: row for row in islice(rows, _BATCH)}:
        present = {row["id"]: tuple(row) for row in await target.fetch(_TARGET_STATE, list(batch))}
        missing = [session for session, row in batch.items() if present.get(session) != row]
        if missing:
            await _copy_sessions(db, target, missing)
        done += len(batch)
        progress(done, total)
    await _copy_rest(db, target)
    return await _counted(db, target)


async def _require_own_sessions(db: apsw.Connection, target: Connection) -> None:
    """Raises CopyError if the database has sessions that are not in the file, or have newer turns than the file."""
    async with target.transaction():
        async for row in target.cursor(f"SELECT {_STATE} FROM parley.sessions"):
            found = db.execute(f"SELECT {_STATE} FROM sessions WHERE id = ?", (row["id"],)).fetchall()
            known: Row = found[0] if found else ()
            if tuple(row)[:3] != known[:3]:
                raise CopyError("the database has sessions that the file does not have; copy into an empty database")
            if (row["turn_count"], row["lease_fence"]) > known[3:5]:
                raise CopyError(f"session {row['id']} has newer turns in the database; a copy would remove them")


async def _copy_keys(db: apsw.Connection, target: Connection) -> None:
    accounts = "SELECT name, plan, limits, suspended FROM accounts"
    keys = """
    SELECT id, name, account, created, models, scopes, digest, expires, revoked, limits,
      previous_digest, previous_expires
    FROM api_keys ORDER BY created, rowid
    """
    events = "SELECT id, time, actor, source, method, subject, changes FROM audit ORDER BY place"
    rows: Iterator[Any] = iter(db.execute(keys))
    async with target.transaction():
        await target.executemany(_ACCOUNT, db.execute(accounts).fetchall())
        await target.executemany(_EVENT, db.execute(events).fetchall())
        await target.executemany(_KEY, [(*row[:4], *map(json.loads, row[4:6]), *row[6:]) for row in rows])


async def _copy_sessions(db: apsw.Connection, target: Connection, sessions: Sequence[str]) -> None:
    """Copies complete sessions and replaces those in the target."""
    async with target.transaction():
        await target.execute("DELETE FROM parley.sessions WHERE id = ANY($1)", sessions)
        for table, columns, key in (
            ("sessions", _SESSION, "id"),
            ("turns", _TURN, "session_id"),
            ("messages", _MESSAGE, "session_id"),
        ):
            names = [name.strip().split()[-1] for name in columns.split(",")]
            booleans = [names.index(name) for name in ("continues", "system") if name in names]
            where = f"{key} IN (SELECT value FROM json_each(?))"
            rows = db.execute(f"SELECT {columns} FROM {table} WHERE {where}", (json.dumps(sessions),))
            records = (_with_booleans(row, booleans) for row in rows)
            await target.copy_records_to_table(table, schema_name="parley", columns=names, records=records)


def _with_booleans(row: Row, indexes: Sequence[int]) -> Row:
    """Converts the values at the indexes to booleans, which SQLite does not have."""
    return tuple(bool(value) if index in indexes else value for index, value in enumerate(row)) if indexes else row


async def _copy_rest(db: apsw.Connection, target: Connection) -> None:
    """Copies stored replies, which reference sessions, the usage, its alerts and the rate-limit buckets."""
    replies = """
    SELECT account, method, key, digest, updated, session_id, reply FROM claims WHERE lease_expires IS NULL
    """
    rows = iter(db.execute(replies))
    while batch := list(islice(rows, _BATCH)):
        await target.executemany(_CLAIM, batch)
    counts = db.execute(f"SELECT {', '.join((*usage.KEYS, *COUNTS))} FROM usage")
    while batch := list(islice(counts, _BATCH)):
        await target.executemany(_USAGE, batch)
    alerts = db.execute("SELECT id, subject, name, period, threshold, payload, tries, created, due FROM alerts")
    await target.executemany(_ALERT, alerts.fetchall())
    await target.executemany(_BUCKET, db.execute("SELECT subject, kind, used, updated FROM buckets").fetchall())


async def _counted(db: apsw.Connection, target: Connection) -> list[Count]:
    """Counts the rows in both databases. Raises CopyError if the counts differ."""
    counts = []
    for name, (source_rows, target_rows) in _BY_KEY.items():
        keys = [row[0] for row in db.execute(source_rows)]
        counts.append(Count(name, len(keys), await target.fetchval(target_rows, keys)))
    for name, query in _ALL.items():
        counts.append(Count(name, _one(db, query.format("")), await target.fetchval(query.format("parley."))))
    if differing := [count for count in counts if count.source != count.target]:
        listed = ", ".join(f"{count.target} of {count.source} {count.name}" for count in differing)
        raise CopyError(f"the copy is incomplete: the database has {listed}")
    return counts


def _one(db: apsw.Connection, query: str, *values: Any) -> int:
    number: Any = db.execute(query, values).fetchall()[0][0]
    return int(number)
