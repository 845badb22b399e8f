"""Kept answers in SQL: the methods of the store, and their statements."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from parley.core.ports.cache import MAX_AHEAD_SECONDS, CacheSize, KeptAnswer
from parley.stores.postgres.database import Connection
from parley.stores.postgres.pool import Pool
from parley.stores.postgres.rows import Now, now

T = TypeVar("T")

_FIND = f"""
SELECT answer FROM parley.cached_answers
WHERE digest = $1 AND expires > {now(3)} AND created BETWEEN {now(3)} - $2::float8 AND {now(3)} + {MAX_AHEAD_SECONDS}
"""
# The lock makes a deletion of the session wait, which then removes the answer, too.
_LOCK_SESSION = "SELECT 1 FROM parley.sessions WHERE id = $1 AND deleted IS NULL FOR SHARE"
_KEEP = f"""
INSERT INTO parley.cached_answers (digest, account, model, session_id, created, expires, size, answer)
VALUES ($1, $2, $3, $4, {now(5)}, {now(5)} + $6::float8, $7, $8)
ON CONFLICT (digest) DO UPDATE SET account = excluded.account, model = excluded.model, session_id = excluded.session_id,
  created = excluded.created, expires = excluded.expires, size = excluded.size, answer = excluded.answer
"""
_TRIM = """
WITH beyond AS MATERIALIZED (
  SELECT digest, created FROM (
    SELECT digest, created, sum(size) OVER (ORDER BY created DESC, digest) AS total
    FROM parley.cached_answers WHERE account = $1 AND model = $2
  ) AS sums WHERE total > $3 ORDER BY created LIMIT $4
), locked AS MATERIALIZED (
  SELECT digest FROM parley.cached_answers WHERE digest IN (SELECT digest FROM beyond) FOR UPDATE SKIP LOCKED
)
DELETE FROM parley.cached_answers USING locked WHERE cached_answers.digest = locked.digest RETURNING 1
"""
_CLEAR = """
WITH found AS MATERIALIZED (
  SELECT digest FROM parley.cached_answers
  WHERE ($1::text IS NULL OR account = $1) AND ($2::text IS NULL OR model = $2) LIMIT $3 FOR UPDATE
)
DELETE FROM parley.cached_answers USING found WHERE cached_answers.digest = found.digest RETURNING 1
"""
_OF_SESSIONS = "DELETE FROM parley.cached_answers WHERE session_id = ANY($1::text[])"
_EXPIRED = f"""
WITH old AS MATERIALIZED (
  SELECT digest FROM parley.cached_answers WHERE expires <= {now(1)} ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM parley.cached_answers USING old WHERE cached_answers.digest = old.digest RETURNING 1
"""
_SIZES = """
SELECT account, model, count(*), sum(size)::bigint FROM parley.cached_answers
GROUP BY account, model ORDER BY sum(size) DESC
"""


class _Store(Protocol):
    _pool: Pool

    def _clock(self) -> Now: ...

    def _read(self, work: Callable[[Connection], Awaitable[T]]) -> Awaitable[T]: ...


class CacheMethods:
    """Implements `parley.core.ports.CacheStore`, as a part of the store."""

    async def find_answer(self: _Store, digest: bytes, max_age: float) -> bytes | None:
        """Returns a kept answer, or None."""
        return await self._read(lambda db: db.fetchval(_FIND, digest, max_age, self._clock()))

    async def keep_answer(self: _Store, kept: KeptAnswer) -> bool:
        """Stores an answer. Returns False if its session is deleted."""
        return await self._pool.run(lambda db: _keep(db, kept, self._clock()))

    async def trim_answers(self: _Store, account: str, model: str, max_bytes: int, limit: int) -> int:
        """Removes the oldest answers beyond a size. Returns their number."""
        return len(await self._pool.run(lambda db: db.fetch(_TRIM, account, model, max_bytes, limit)))

    async def clear_answers(self: _Store, account: str | None, model: str | None, limit: int) -> int:
        """Removes answers. Returns their number."""
        return len(await self._pool.run(lambda db: db.fetch(_CLEAR, account, model, limit)))

    async def cache_sizes(self: _Store) -> list[CacheSize]:
        """Returns the sizes by account and model."""
        return [CacheSize(*row) for row in await self._read(lambda db: db.fetch(_SIZES))]


async def _keep(db: Connection, kept: KeptAnswer, now: Now) -> bool:
    values = (kept.digest, kept.account, kept.model, kept.session_id, now, kept.ttl, kept.size, kept.answer)
    if kept.session_id is None:
        await db.execute(_KEEP, *values)
        return True
    async with db.transaction():
        if await db.fetchval(_LOCK_SESSION, kept.session_id) is None:
            return False
        await db.execute(_KEEP, *values)
        return True


async def remove_of_sessions(db: Connection, session_ids: list[str]) -> None:
    """Removes the answers of sessions that are deleted."""
    await db.execute(_OF_SESSIONS, session_ids)


async def reap_answers(db: Connection, now: Now, limit: int) -> int:
    """Removes answers after their time. Returns their number."""
    return len(await db.fetch(_EXPIRED, now, limit))
