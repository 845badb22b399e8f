"""The SQLite file: creation, connection, schema and errors."""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw

from parley.core.errors import StoreUnavailable
from parley.core.messages.roles import is_system
from parley.core.sessions import history
from parley.core.usage.tokens import message_tokens
from parley.stores.known import KNOWN_STORES
from parley.stores.migrations import Migration, migrations, mismatch
from parley.v1.message_pb2 import Message

_BUSY_SECONDS = 5.0
_BUSY_POLL = 0.0005
# apsw evicts a prepared statement after this many others: more than the statements of a batch.
_STATEMENTS = 1024
_INCREMENTAL = 2
_MIN_FREE_SPACE = 8 * 1024 * 1024
_FIRST_UNSAFE, _FIRST_SAFE = (3, 7, 0), (3, 51, 3)

_HINTS: dict[type[apsw.Error], str] = {
    apsw.BusyError: f"another process has kept it locked for {_BUSY_SECONDS:.0f} s; look for a hanging process",
    apsw.LockedError: "it is locked; look for a hanging process",
    apsw.FullError: "the disk is full; free some space",
    apsw.IOError: "the disk fails or is full; see the system's log",
    apsw.ReadOnlyError: "it cannot be written; check the owner and mode of the file and its folder",
    apsw.PermissionsError: "it cannot be read; check the owner and mode of the file and its folder",
    apsw.CantOpenError: "it cannot be opened; it must be a file in a folder that Parley may write to",
    apsw.NotADBError: "it is not an SQLite database; move it away, or configure another location",
    apsw.CorruptError: "it is damaged; restore it from a backup",
    apsw.ProtocolError: "its locks do not work; it must be on a local disk",
    apsw.NoMemError: "there is no free memory",
}
_LOST = "it existed before and is missing or empty; restore it from a backup, or remove {} to start with an empty store"
_EMPTY = "it is empty; restore it from a backup"
_REPLACED = (
    "it is another database than before; restore the right one, or remove {} to use this one, and start Parley again"
)
_NO_TABLES = "its tables are missing; restore it from a backup"
OUTAGES = tuple(_HINTS)
"""The errors of apsw that concern the file and not the statement."""
# The connection remains usable after these errors.
_TRANSIENT = (apsw.BusyError, apsw.LockedError, apsw.FullError)


def require_safe_library(version: str) -> None:
    """Raises StoreUnavailable for an SQLite with the WAL-reset bug, which can corrupt a file with several writers."""
    number = tuple(int(part) for part in version.split("."))
    if _FIRST_UNSAFE <= number < _FIRST_SAFE:
        raise StoreUnavailable(
            f"SQLite {version} can corrupt a file with several writers; install apsw 3.51.3 or later"
        )


class Database:
    """A connection to the file for one thread, reopened automatically when the file is available again.

    The connection is used only inside `use()`. Only the constructor creates the file and the schema: a file that
    disappears later is an outage, not an empty store in which no key is valid.
    """

    def __init__(
        self, path: Path, *, check: bool = True, allow_unavailable: bool = False, identity: str | None = None
    ) -> None:
        """Opens the file and creates it if necessary. A file that existed before and is missing is not created.

        Args:
            path: The file.
            check: Whether to check the version of the schema.
            allow_unavailable: The file exists, or has existed: it is not created, and is opened once it is available.
            identity: The identity of the database that the file must contain, see `identify`; None for any.

        Raises:
            StoreUnavailable: The file cannot be opened.
        """
        require_safe_library(apsw.sqlite_lib_version())
        self.path = path
        self._name = os.fspath(path)
        self._connection: apsw.Connection | None = None
        self._file = (0, 0)
        self._identity = identity
        self._is_known = allow_unavailable
        if allow_unavailable:
            return
        if _is_missing(path) and (identity is not None or queue_file(path).exists()):
            marks = [queue_file(path).name, *([] if identity is None else [KNOWN_STORES])]
            raise self._unavailable(_LOST.format(" and ".join(marks)))
        _make_private_file(path)
        with self.use() as connection:
            _make_schema(connection)
            if check:
                self._check_version(connection)
        self._is_known = True

    @contextmanager
    def use(self) -> Iterator[apsw.Connection]:
        """Yields the connection. Converts errors of the file to StoreUnavailable."""
        try:
            yield self._connect()
        except OUTAGES as error:
            self._rollback()
            if not isinstance(error, _TRANSIENT):
                self.close()
            raise self._unavailable(f"{_hint(error)} ({error})") from error
        except apsw.SQLError as error:
            if not is_missing_table(error):
                raise
            self._rollback()
            self.close()
            raise self._unavailable(f"{_NO_TABLES} ({error})") from error

    def close(self) -> None:
        """Closes the connection; `use` reopens it."""
        if self._connection is not None:
            with suppress(apsw.Error):
                self._connection.close()
        self._connection = None

    def _connect(self) -> apsw.Connection:
        """Returns the open connection; opens it if it is closed or the path leads to another file."""
        try:
            status = os.stat(self._name)  # noqa: PTH116 - once a transaction
        except OSError as error:
            raise self._unavailable(f"it is missing or inaccessible ({error.strerror})") from error
        if status.st_size == 0 and self._is_known:
            self.close()
            raise self._unavailable(_EMPTY)
        file = (status.st_dev, status.st_ino)
        if self._connection is None or file != self._file:
            self.close()
            self._connection = _open(self.path)
            self._file = file
            if self._is_known:
                self._check_version(self._connection)
        return self._connection

    def _check_version(self, connection: apsw.Connection) -> None:
        problem = mismatch(connection.pragma("user_version"), len(_steps()))
        if not problem and self._identity not in (None, str(connection.pragma("application_id"))):
            problem = _REPLACED.format(KNOWN_STORES)
        if problem:
            self.close()
            raise self._unavailable(problem)

    def _rollback(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            with suppress(apsw.Error):
                self._connection.execute("ROLLBACK")

    def _unavailable(self, cause: str) -> StoreUnavailable:
        return StoreUnavailable(f"{self.path}: {cause}")


def queue_file(path: Path) -> Path:
    """Returns the lock file of the writer queue beside the database; its existence shows that the database existed."""
    return path.with_name(f"{path.name}-queue")


def is_missing_table(error: Exception) -> bool:
    """Returns whether a statement failed because the file has other tables, for example because it was overwritten."""
    return isinstance(error, apsw.SQLError) and "no such table" in str(error)


def identify(connection: apsw.Connection) -> str:
    """Returns the identity of a database, which its backups share; writes one into a database without.

    It is SQLite's application id, a number in the header of the file.
    """
    if connection.pragma("application_id") == 0:
        connection.pragma("application_id", secrets.randbelow(2**31 - 1) + 1)
    return str(connection.pragma("application_id"))


def _is_missing(path: Path) -> bool:
    """Returns whether there is no file, or an empty one."""
    return not path.exists() or (path.is_file() and path.stat().st_size == 0)


def _make_private_file(path: Path) -> None:
    """Creates the file if necessary, with access for the current user only."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # An existing file is not opened: closing it would release the locks of this process's connections to it.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise StoreUnavailable(f"{path}: it cannot be created ({error.strerror}); check its folder") from error


def _open(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=_STATEMENTS)
    # Without it, a statement that uses a partial index is planned again whenever a value is bound to it.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.set_busy_handler(wait_for_lock)
    if connection.readonly("main"):
        connection.close()
        raise apsw.ReadOnlyError("opened for reading only")
    # Takes effect only in a file without tables; `parley db upgrade` converts an older one.
    connection.pragma("auto_vacuum", _INCREMENTAL)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.pragma("foreign_keys", True)
    # Overwrites deleted conversations instead of only unlinking them.
    connection.pragma("secure_delete", True)
    return connection


def wait_for_lock(tries: int) -> bool:
    """Waits for another process's lock; SQLite's own waits grow to 100 ms, which starves the longest waiter."""
    time.sleep(_BUSY_POLL)
    return tries * _BUSY_POLL < _BUSY_SECONDS


def require_space(path: Path) -> None:
    """Raises StoreUnavailable if the file's disk has too little free space for the turns of the next seconds."""
    try:
        disk = os.statvfs(path.parent)
    except OSError as error:
        raise StoreUnavailable(f"{path}: it is missing or inaccessible ({error.strerror})") from error
    free = disk.f_frsize * (disk.f_bavail if os.geteuid() else disk.f_bfree)
    if free < _MIN_FREE_SPACE:
        raise StoreUnavailable(f"{path}: {_HINTS[apsw.FullError]}")


def upgrade(path: Path) -> tuple[int, int]:
    """Applies pending migrations and returns the schema versions before and after.

    The migrations run in one transaction, which also serializes concurrent upgrades. Raises StoreUnavailable.
    """
    database = Database(path, check=False)
    try:
        with database.use() as connection:
            versions = _migrate(connection)
            _allow_shrinking(connection)
            return versions
    finally:
        database.close()


def _allow_shrinking(connection: apsw.Connection) -> None:
    """Rewrites a file of an older version so that it can shrink. Requires free space of the size of the file."""
    if connection.pragma("auto_vacuum") != _INCREMENTAL:
        connection.pragma("auto_vacuum", _INCREMENTAL)
        connection.execute("VACUUM")


def _steps() -> Sequence[Migration]:
    return migrations(__package__)


def _make_schema(connection: apsw.Connection) -> None:
    """Creates the tables in an empty file; leaves a file with tables unchanged."""
    if connection.pragma("user_version") == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchall():
        _migrate(connection)


def _migrate(connection: apsw.Connection) -> tuple[int, int]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        before = connection.pragma("user_version")
        add_functions(connection)
        if before > 0 or not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
            for step in _steps()[before:]:
                connection.execute(step.sql)
                connection.pragma("user_version", step.number)
        after = connection.pragma("user_version")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return before, after


def add_functions(connection: apsw.Connection) -> None:
    """Registers the SQL functions with which migrations fill new columns from stored messages."""

    def add(name: str, function: Callable[[Message], int]) -> None:
        def call(*values: Any) -> int:
            (stored,) = values
            return function(Message.FromString(stored))

        connection.create_scalar_function(name, call, 1, deterministic=True)

    add("is_system", is_system)
    add("is_result", lambda message: history.starts_with_tool_result([message]))
    add("message_tokens", message_tokens)


def _hint(error: apsw.Error) -> str:
    return next(hint for kind, hint in _HINTS.items() if isinstance(error, kind))
