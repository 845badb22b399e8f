"""The states of targets in SQL: the method of the store, and its statements."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from parley.core.ports.targets import TargetState
from parley.stores.postgres.database import Connection
from parley.stores.postgres.pool import Pool

T = TypeVar("T")
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8 AS now"
# Two machines may change different parts of a state at the same time: of two openings, recoveries or holds, the later
# one stays. A recovery of a machine without a hold ends the hold, because an administrator may have closed the breaker.
# A target that has left all configurations is removed a day after its last change.
_STORE = f"""
WITH clock AS MATERIALIZED ({_CLOCK}), removed AS (
  DELETE FROM parley.targets USING clock WHERE changed < now - 86400 AND name <> ALL($2::text[])
)
INSERT INTO parley.targets AS old
  (name, opened_at, recovered_at, next_probe, interval, held_until, rate_limited, machine, changed)
SELECT name, now - opened_ago, now - recovered_ago, now + next_probe_in, new.interval, now + held_for, limited, $1, now
FROM clock, unnest($2::text[], $3::float8[], $4::float8[], $5::float8[], $6::float8[], $7::float8[], $8::boolean[])
  AS new (name, opened_ago, recovered_ago, next_probe_in, interval, held_for, limited)
ORDER BY name -- so that two machines never wait for each other
ON CONFLICT (name) DO UPDATE SET
  opened_at = greatest(old.opened_at, excluded.opened_at),
  recovered_at = greatest(old.recovered_at, excluded.recovered_at),
  next_probe = coalesce(excluded.next_probe, old.next_probe),
  interval = excluded.interval,
  held_until = CASE WHEN excluded.held_until IS NULL AND excluded.recovered_at > coalesce(old.recovered_at, 0) + 0.1
    THEN NULL ELSE greatest(old.held_until, excluded.held_until) END,
  rate_limited = CASE WHEN excluded.held_until >= coalesce(old.held_until, 0)
    THEN excluded.rate_limited ELSE old.rate_limited END,
  machine = excluded.machine,
  changed = excluded.changed
"""
_RECENT = f"""
WITH clock AS MATERIALIZED ({_CLOCK})
SELECT name, now - opened_at, now - recovered_at, next_probe - now, interval,
  CASE WHEN held_until > now THEN held_until - now END, rate_limited, changed, machine = $1
FROM clock, parley.targets WHERE changed > now - 600 -- seconds: longer than any hold
"""


class _Store(Protocol):
    _pool: Pool

    def _read(self, work: Callable[[Connection], Awaitable[T]]) -> Awaitable[T]: ...


class TargetMethods:
    """Implements `parley.core.ports.targets.TargetStore`, as a part of the store."""

    async def exchange_targets(self: _Store, machine: str, changed: Sequence[TargetState]) -> list[TargetState]:
        """Stores the changed states, and returns those that any machine has changed recently."""
        if changed:
            columns = list(zip(*changed, strict=True))[:7]
            await self._pool.run(lambda db: db.execute(_STORE, machine, *columns))
        return [TargetState(*row) for row in await self._read(lambda db: db.fetch(_RECENT, machine))]
