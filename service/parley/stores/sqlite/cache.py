"""Kept answers in SQL: the methods of the store, and functions that are jobs of the writer or reads."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import apsw

from parley.core.ports.cache import MAX_AHEAD_SECONDS, CacheSize, KeptAnswer
from parley.stores.sqlite.clock import FileClock
from parley.stores.sqlite.rows import column, rows
from parley.stores.sqlite.writer import Writer

T = TypeVar("T")

_FIND = "SELECT answer FROM cached_answers WHERE digest = ? AND expires > ? AND created >= ? AND created <= ?"
_KEEP = """
INSERT INTO cached_answers (digest, account, model, session_id, created, expires, size, answer)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
WHERE ?4 IS NULL OR EXISTS (SELECT 1 FROM sessions WHERE id = ?4 AND deleted IS NULL)
ON CONFLICT (digest) DO UPDATE SET account = excluded.account, model = excluded.model, session_id = excluded.session_id,
  created = excluded.created, expires = excluded.expires, size = excluded.size, answer = excluded.answer
RETURNING 1
"""
_TRIM = """
DELETE FROM cached_answers WHERE rowid IN (
  SELECT rowid FROM (
    SELECT rowid, created, sum(size) OVER (ORDER BY created DESC, rowid DESC) AS total
    FROM cached_answers WHERE account = ? AND model = ?
  ) WHERE total > ? ORDER BY created LIMIT ?
) RETURNING 1
"""
_CLEAR = """
DELETE FROM cached_answers WHERE rowid IN (
  SELECT rowid FROM cached_answers WHERE (?1 IS NULL OR account = ?1) AND (?2 IS NULL OR model = ?2) LIMIT ?3
) RETURNING 1
"""
_OF_SESSION = "DELETE FROM cached_answers WHERE session_id = ?"
_EXPIRED = """
DELETE FROM cached_answers WHERE rowid IN (
  SELECT rowid FROM cached_answers WHERE expires <= ? ORDER BY expires LIMIT ?
) RETURNING 1
"""
_SIZES = """
SELECT account, model, count(*), sum(size) FROM cached_answers GROUP BY account, model ORDER BY sum(size) DESC
"""


class _Store(Protocol):
    _clock: FileClock
    _writer: Writer

    def _read(self, work: Callable[[apsw.Connection], T]) -> Awaitable[T]: ...


class CacheMethods:
    """Implements `parley.core.ports.CacheStore`, as a part of the store."""

    async def find_answer(self: _Store, digest: bytes, max_age: float) -> bytes | None:
        """Returns a kept answer, or None."""
        return await self._read(lambda db: _find(db, digest, max_age, self._clock.lease_time(db)))

    async def keep_answer(self: _Store, kept: KeptAnswer) -> bool:
        """Stores an answer. Returns False if its session is deleted."""
        return await self._writer.submit(lambda db: _keep(db, kept, self._clock.lease_time(db)))

    async def trim_answers(self: _Store, account: str, model: str, max_bytes: int, limit: int) -> int:
        """Removes the oldest answers beyond a size. Returns their number."""
        values = (account, model, max_bytes, limit)
        return await self._writer.submit(lambda db: len(column(db, _TRIM, values)), deletes=True)

    async def clear_answers(self: _Store, account: str | None, model: str | None, limit: int) -> int:
        """Removes answers. Returns their number."""
        values = (account, model, limit)
        return await self._writer.submit(lambda db: len(column(db, _CLEAR, values)), deletes=True)

    async def cache_sizes(self: _Store) -> list[CacheSize]:
        """Returns the sizes by account and model."""
        return await self._read(lambda db: [CacheSize(*row) for row in rows(db, _SIZES, ())])


def _find(db: apsw.Connection, digest: bytes, max_age: float, now: float) -> bytes | None:
    found = column(db, _FIND, (digest, now, now - max_age, now + MAX_AHEAD_SECONDS))
    return found[0] if found else None


def _keep(db: apsw.Connection, kept: KeptAnswer, now: float) -> bool:
    owner = (kept.digest, kept.account, kept.model, kept.session_id)
    return bool(rows(db, _KEEP, (*owner, now, now + kept.ttl, kept.size, kept.answer)))


def remove_of_session(db: apsw.Connection, session_id: str) -> None:
    """Removes the answers of a session that is deleted."""
    db.execute(_OF_SESSION, (session_id,))


def reap_answers(db: apsw.Connection, now: float, limit: int) -> int:
    """Removes answers after their time. Returns their number."""
    return len(column(db, _EXPIRED, (now, limit)))
