"""The PostgreSQL server: connections, and the classification of errors."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from parley.core.errors import StoreMisconfigured, StoreUnavailable
from parley.core.sessions.idempotency import LEASE_SECONDS
from parley.stores.known import KNOWN_STORES
from parley.stores.migrations import migrations, mismatch
from parley.stores.postgres import hosts

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# A connection that finds the marker of another one shares its server session, as behind a pooler.
_PREPARE = """
SELECT current_setting('parley.session', true) AS marker, set_config('parley.session', 'on', {local}),
  pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS read_only,
  to_regclass('parley.migrations') IS NOT NULL AS made,
  -- An acknowledged turn must be on disk, so a weaker default is overridden; a stronger one (remote_apply) is kept.
  CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN
    set_config('synchronous_commit', 'on', {local}) END,
  set_config('default_transaction_isolation', 'read committed', {local}),
  set_config('statement_timeout', $1, {local}),
  set_config('jit', 'off', {local}),
  -- Every statement finds its rows by key. Plans must not depend on the size of the tables at planning time: a scan of
  -- a table, or of a session's complete history for a join, would cost more with every turn.
  set_config('plan_cache_mode', 'force_generic_plan', {local}), set_config('enable_seqscan', 'off', {local}),
  set_config('enable_hashjoin', 'off', {local}), set_config('enable_mergejoin', 'off', {local})
"""
_PREPARE_SESSION, _PREPARE_TRANSACTION = _PREPARE.format(local="false"), _PREPARE.format(local="true")
STATE = """
SELECT coalesce(max(number), 0) AS version, extract(epoch FROM min(made))::text AS identity,
  -- As JSON, because databases of older versions do not have the column.
  coalesce(max(coalesce((to_jsonb(migrations) ->> 'oldest_worker')::integer, number)), 0) AS oldest_worker
FROM parley.migrations
"""

# PostgreSQL's error classes that do not concern the statement: connection, transaction state, authorization, catalog,
# resources, operator intervention, system, internal. Then single codes: missing tables and privileges.
_OUTAGE_CLASSES = frozenset({"08", "25", "28", "3D", "3F", "40", "53", "57", "58", "F0", "XX"})
_OUTAGES = frozenset({"42P01", "42501", "42703", "42883", "55P03"})
STATEMENT_LOST = ("26000", "42P05")
_POOLER = "a pooler in transaction mode is between Parley and the server; set `pooling: transaction` under `store`"
_MISCONFIGURED = ("28", "3D000", "42501")
_POOLER_FULL = "no more connections allowed"  # PgBouncer at its max_client_conn, which has no code of its own
_CONTENTION = ("40001", "40P01")
_DISCONNECTIONS = ("08", "57P01", "57P02", "57P03")
_PREPARED = nullcontext()
_NO_TABLES = (
    "it has no tables of Parley; restore them, or run `parley db upgrade` and remove"
    f" {KNOWN_STORES} to start with empty ones"
)
_REPLACED = (
    "its tables are others than before; restore the right ones, or remove"
    f" {KNOWN_STORES} to use these, and start Parley again"
)
_URL_HINT = "its URL cannot be used; write postgresql://USER:PASSWORD@HOST:PORT/NAME, and special characters as %XX"
_SAFE_LOCATION = re.compile(r"[\w.,:\[\]%-]*(/[\w.%-]*)?")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts in seconds.

    Attributes:
        connect: The maximum time to open a connection.
        command: The maximum time of one call.
        probe: The average pause between two probes while the server is unavailable.
        verify: The maximum time of each probe after a call that timed out.
        wait: The maximum time for which a call waits for an unavailable server.
        lease_grace: The time after an outage in which no expired lease is ended, because its holder may still renew it.
    """

    connect: float = 3.0
    command: float = 5.0
    probe: float = 0.25
    verify: float = 1.0
    wait: float = 0.0
    lease_grace: float = LEASE_SECONDS


class WrongSchema(StoreMisconfigured):
    """The server is available, but its tables do not fit this version of Parley."""


class LostSchema(StoreUnavailable):
    """The server is available, but has no tables of Parley, or others than before."""


class Database:
    """One database on a server. Opens configured connections, and describes errors without the password.

    Behind a pooler in transaction mode, such as PgBouncer, no state is kept in a server session: there are no prepared
    statements, and every call is a transaction that includes its settings.
    """

    def __init__(self, url: str, timeouts: Timeouts, *, pooled: bool = False) -> None:
        """Does not connect. `pooled` states that a pooler in transaction mode is in front of the server."""
        self.timeouts = timeouts
        self.pooled = pooled
        self.name = database_name(url)
        self.identity: str | None = None
        self._is_constant = False
        self._url = url

    def expect(self, identity: str | None, *, is_constant: bool) -> None:
        """Sets which tables the database must have; it is unavailable with others.

        Args:
            identity: The time of their creation, which backups and standbys share; None for any.
            is_constant: Whether they must be those of the first connection.
        """
        self.identity, self._is_constant = identity, is_constant

    def __repr__(self) -> str:
        return f"Database({self.name!r})"

    async def connect(self, *, check: bool = True) -> Connection:
        """Opens a connection to a writable server.

        Args:
            check: Whether to check the version of the schema.

        Raises:
            StoreUnavailable: The server cannot be reached or is read-only, or the schema has another version.
        """
        try:
            async with asyncio.timeout(self.timeouts.connect):
                connection = await hosts.connect(
                    self._url,
                    timeout=self.timeouts.connect,
                    command_timeout=self.timeouts.command,
                    statement_cache_size=0 if self.pooled else 100,
                    server_settings={"application_name": "parley"},
                )
                try:
                    await self._prepare(connection, check=check)
                except BaseException:
                    connection.terminate()
                    raise
                return connection
        except StoreUnavailable:
            raise
        except Exception as error:
            if isinstance(error, ValueError) and not isinstance(error, OSError):
                # An error of asyncpg about the URL, whose text may contain the password.
                raise StoreMisconfigured(f"{self.name}: {_URL_HINT}") from None
            if (cause := outage(error)) is None:
                raise
            if is_misconfigured(error):
                raise StoreMisconfigured(f"{self.name}: {cause}") from error
            raise self.unavailable(cause) from error

    def unavailable(self, cause: str) -> StoreUnavailable:
        """Returns the error for a database that cannot be used."""
        return StoreUnavailable(f"{self.name}: {cause}")

    def wrong_schema(self, cause: str) -> WrongSchema:
        """Returns the error for tables that cannot be used."""
        return WrongSchema(f"{self.name}: {cause}")

    def prepared(self, connection: Connection) -> AbstractAsyncContextManager[None]:
        """Prepares a connection for one call; behind a pooler, wraps the call in a transaction."""
        return self._transaction(connection) if self.pooled else _PREPARED

    @asynccontextmanager
    async def _transaction(self, connection: Connection) -> AsyncIterator[None]:
        async with connection.transaction():
            await connection.execute(_PREPARE_TRANSACTION.replace("$1", f"'{self.timeouts.command:.3f}s'"))
            yield

    async def _prepare(self, connection: Connection, *, check: bool) -> None:
        if self.pooled:
            async with connection.transaction():
                await self._require_usable(connection, _PREPARE_TRANSACTION, check=check)
        else:
            await self._require_usable(connection, _PREPARE_SESSION, check=check)

    async def _require_usable(self, connection: Connection, prepare: str, *, check: bool) -> None:
        settings = await connection.fetchrow(prepare, f"{self.timeouts.command:.3f}s")
        assert settings is not None  # noqa: S101 - for the type checker
        if settings["marker"] and not self.pooled:
            raise StoreMisconfigured(f"{self.name}: {_POOLER}")
        if settings["read_only"]:
            raise self.unavailable("it is read-only (a standby, or in recovery); configure the primary server")
        if check:
            state = await connection.fetchrow(STATE) if settings["made"] else None
            if state is None or not state["version"]:
                raise LostSchema(f"{self.name}: {_NO_TABLES}")
            self.require_supported(state)
            self._check_identity(state["identity"])

    async def check_version(self, connection: Connection) -> None:
        """Checks that the schema still supports this version of Parley. Raises StoreMisconfigured."""
        state = await connection.fetchrow(STATE)
        assert state is not None  # noqa: S101 - for the type checker
        self.require_supported(state)

    def require_supported(self, state: asyncpg.Record) -> None:
        """Raises StoreMisconfigured if the schema, see `STATE`, does not support this version of Parley."""
        if problem := mismatch(state["version"], steps(), state["oldest_worker"]):
            raise self.wrong_schema(problem)

    def _check_identity(self, found: str) -> None:
        if self.identity not in (None, found):
            raise LostSchema(f"{self.name}: {_REPLACED}")
        if self._is_constant:
            self.identity = found


def outage(error: BaseException) -> str | None:
    """Returns why the server failed, in one line; None if the error does not concern the server."""
    if isinstance(error, StoreUnavailable):
        return error.cause
    if isinstance(error, TimeoutError):
        return "it does not answer in time; see whether it hangs or is overloaded"
    if isinstance(error, asyncpg.PostgresError):
        return _server_outage(error, error.sqlstate or "XX")
    if isinstance(error, asyncpg.DataError):
        return None
    if isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return _one_line(error) or type(error).__name__
    return None


def _server_outage(error: asyncpg.PostgresError, code: str) -> str | None:
    if code in STATEMENT_LOST:
        return _POOLER
    known = code[:2] in _OUTAGE_CLASSES or code in _OUTAGES
    return f"{_one_line(error)} ({code})" if known else None


def is_misconfigured(error: BaseException) -> bool:
    """Returns whether the server rejects the user, the password, the database or a privilege."""
    return isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith(_MISCONFIGURED)


def is_timeout(error: BaseException) -> bool:
    """Returns whether one call timed out, which does not imply a failure of the server."""
    return isinstance(error, TimeoutError | asyncpg.QueryCanceledError)


def is_at_connection_limit(error: BaseException | None) -> bool:
    """Returns whether the server, or a pooler in front of it, accepts no further connection."""
    if isinstance(error, asyncpg.PostgresError) and _POOLER_FULL in str(error):
        return True
    return isinstance(error, asyncpg.TooManyConnectionsError | TimeoutError)


def is_contention(error: BaseException) -> bool:
    """Returns whether the statement conflicted with another one and may succeed if it is repeated."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate in _CONTENTION


def is_disconnection(error: BaseException) -> bool:
    """Returns whether the connection was lost, for example because the server shuts down."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_DISCONNECTIONS)
    return isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError)


def is_read_only_server(error: BaseException) -> bool:
    """Returns whether the server has become read-only."""
    return isinstance(error, asyncpg.ReadOnlySQLTransactionError)


def steps() -> int:
    """Returns the version of the schema that this version of Parley needs."""
    return len(migrations(__package__))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def database_name(url: str) -> str:
    """Returns the host and the database of a URL, without anything that may be a password."""
    location = url.partition("://")[2].rpartition("@")[2].partition("?")[0]
    if "password" in url.lower() or not location or not _SAFE_LOCATION.fullmatch(location):
        return "PostgreSQL"
    return f"PostgreSQL at {location}"
