"""The store, and how long it keeps sessions."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from parley.config.types import Duration, Strict, matching


class SqliteConfig(Strict):
    """One file for one machine; without `path`: `parley.db` in the state folder."""

    kind: Literal["sqlite"] = "sqlite"
    path: Path | None = None


class PostgresConfig(Strict):
    """A PostgreSQL database for any number of machines.

    Each worker opens up to `pool` connections while calls need them, and one that listens from when a caller first
    waits for a session. `pooling: transaction` is for a pooler in that mode, such as PgBouncer: then nothing listens,
    and every call costs more round trips.
    """

    kind: Literal["postgres"]
    url: Annotated[str, matching(r"postgres(ql)?://.*", 'must begin with "postgresql://"')] = Field(repr=False)
    pool: int = Field(default=10, ge=2, le=100)
    pooling: Literal["session", "transaction"] = "session"


StoreConfig = Annotated[SqliteConfig | PostgresConfig, Field(discriminator="kind")]


class Retention(Strict):
    """How long a session is kept after its latest turn; None (in YAML `null`) is for ever."""

    ttl: Duration | None = 30 * 86400.0
