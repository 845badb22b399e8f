"""The store, and the retention of sessions."""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from parley.config.markers import ByKind, Constraints
from parley.config.types import Duration, Strict, matches


class SqliteConfig(Strict):
    """One SQLite file, for all workers of one machine.

    Example:
        store: {kind: sqlite, path: /var/lib/parley/parley.db}
    """

    kind: Literal["sqlite"] = "sqlite"
    """Selects this kind of store."""
    path: Path | None = None
    """File of the database, on a local disk. Default: `parley.db` in the state folder."""


class PostgresConfig(Strict):
    """A PostgreSQL database, for any number of machines.

    Example:
        store: {kind: postgres, url: "postgresql://parley:${PGPASSWORD}@db.internal/parley"}
    """

    kind: Literal["postgres"]
    """Selects this kind of store."""
    url: Annotated[str, matches(r"postgres(ql)?://.*", 'must begin with "postgresql://"')] = field(repr=False)
    """Connection URL, for example `postgresql://parley:${PGPASSWORD}@db.internal/parley`."""
    pool: Annotated[int, Constraints(ge=2, le=100)] = 10
    """Largest number of connections that calls of one worker use at a time. One more connection listens for released
    sessions as soon as a caller waits for one."""
    pooling: Literal["session", "transaction"] = "session"
    """Mode of the connection pooler. With `transaction` (PgBouncer in that mode) no connection listens, and each call
    needs more round trips."""
    wait: Annotated[Duration, Constraints(le=60)] | None = 10.0
    """Longest time for which a call that needs the database waits while there is no primary, as during a failover,
    before it fails with 503. Calls fail at once when an outage has lasted three times as long. `null`: calls never
    wait."""
    distributed: bool = False
    """Whether the tables of sessions are distributed over several servers, as by `edge/postgres/distribute.sql`. Each
    statement of a turn is then for one shard, and turns share no statements."""


StoreConfig = Annotated[SqliteConfig | PostgresConfig, ByKind()]


class Retention(Strict):
    """Retention of sessions.

    Example:
        sessions: {ttl: 7d}
    """

    ttl: Duration | None = 30 * 86400.0
    """Time after its latest turn at which a session is deleted. `null`: never."""
