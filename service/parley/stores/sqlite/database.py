"""The SQLite file: how it is made and opened, and why it cannot be."""

import os
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
from parley.stores.migrations import Migration, migrations, mismatch
from parley.v1.message_pb2 import Message

_BUSY_SECONDS = 5.0
_BUSY_POLL = 0.0005
# apsw forgets a statement once so many others have run after it: more than a batch of one kind of job has.
_STATEMENTS = 1024
_INCREMENTAL = 2
_MIN_FREE_SPACE = 8 * 1024 * 1024
_FIRST_UNSAFE, _FIRST_SAFE = (3, 7, 0), (3, 51, 3)

_HINTS: dict[type[apsw.Error], str] = {
    apsw.BusyError: f"another process has kept it locked for {_BUSY_SECONDS:.0f} s; look for one that hangs",
    apsw.LockedError: "it is locked; look for a process that hangs",
    apsw.FullError: "the disk is full; free some space",
    apsw.IOError: "the disk fails or is full; see the system's log",
    apsw.ReadOnlyError: "it may not be written; check the owner and mode of the file and its folder",
    apsw.PermissionsError: "it may not be read; check the owner and mode of the file and its folder",
    apsw.CantOpenError: "it cannot be opened; it must be a file in a folder that Parley may write to",
    apsw.NotADBError: "it is not an SQLite database; move it away or name another place",
    apsw.CorruptError: "it is damaged; restore it from a backup",
    apsw.ProtocolError: "its locks do not work; it must be on a local disk",
    apsw.NoMemError: "memory ran out",
}
_LOST = "it was here and is missing; restore it from a backup, or remove {} to begin with an empty store"
OUTAGES = tuple(_HINTS)
"""What apsw raises when the file fails, and not the statement."""
# After these the connection itself is still good.
_TRANSIENT = (apsw.BusyError, apsw.LockedError, apsw.FullError)


def require_safe_library(version: str) -> None:
    """Refuses an SQLite that can corrupt a file with several writers (the WAL-reset bug). Raises StoreUnavailable."""
    number = tuple(int(part) for part in version.split("."))
    if _FIRST_UNSAFE <= number < _FIRST_SAFE:
        raise StoreUnavailable(
            f"SQLite {version} can corrupt a file with several writers; install apsw 3.51.3 or later"
        )


class Database:
    """A connection to the file for one thread: opened again by itself once the file is back.

    Every use of the connection belongs inside `use()`. Only the constructor creates the file and the schema: a file
    that vanishes later is an outage, and not an empty store in which no key is valid.
    """

    def __init__(self, path: Path, *, check: bool = True, allow_unavailable: bool = False) -> None:
        """Opens the file, makes it if need be, and checks the version of its schema. Raises StoreUnavailable.

        A file that was there before, and is missing, is not made anew. `allow_unavailable`: that is no error; it is
        opened once it is back.
        """
        require_safe_library(apsw.sqlite_lib_version())
        self.path = path
        self._connection: apsw.Connection | None = None
        self._identity = (0, 0)
        self._is_known = False
        if _is_lost(path):
            self._is_known = True
            if allow_unavailable:
                return
            raise self._unavailable(_LOST.format(queue_file(path).name))
        _make_private_file(path)
        with self.use() as connection:
            _make_schema(connection)
            if check:
                self._check_version(connection)
        self._is_known = True

    @contextmanager
    def use(self) -> Iterator[apsw.Connection]:
        """Lends the connection. Failures of the file come out as StoreUnavailable, with their cause."""
        try:
            yield self._connect()
        except OUTAGES as error:
            self._rollback()
            if not isinstance(error, _TRANSIENT):
                self.close()
            raise self._unavailable(f"{_hint(error)} ({error})") from error

    def close(self) -> None:
        """Closes the connection; `use` opens it again."""
        if self._connection is not None:
            with suppress(apsw.Error):
                self._connection.close()
        self._connection = None

    def _connect(self) -> apsw.Connection:
        """Returns the open connection; opens it where it is not, or where another file has taken the path's place."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._unavailable(f"it is missing or out of reach ({error.strerror})") from error
        identity = (status.st_dev, status.st_ino)
        if self._connection is None or identity != self._identity:
            self.close()
            self._connection = _open(self.path)
            self._identity = identity
            if self._is_known:
                self._check_version(self._connection)
        return self._connection

    def _check_version(self, connection: apsw.Connection) -> None:
        if wrong := mismatch(connection.pragma("user_version"), len(_steps())):
            self.close()
            raise self._unavailable(wrong)

    def _rollback(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            with suppress(apsw.Error):
                self._connection.execute("ROLLBACK")

    def _unavailable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"{self.path}: {why}")


def queue_file(path: Path) -> Path:
    """Returns the file beside the database in which writers queue; it shows that there was a database."""
    return path.with_name(f"{path.name}-queue")


def _is_lost(path: Path) -> bool:
    return queue_file(path).exists() and not path.exists()


def _make_private_file(path: Path) -> None:
    """Makes the file where there is none, for this user alone: it will hold conversations."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A file that is there is not opened: closing it again would drop the locks of this process's connections to it.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise StoreUnavailable(f"{path}: it cannot be made ({error.strerror}); check its folder") from error


def _open(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=_STATEMENTS)
    # Without it a statement that meets a partial index is planned anew whenever a value is bound to it.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.set_busy_handler(wait_for_lock)
    if connection.readonly("main"):
        connection.close()
        raise apsw.ReadOnlyError("opened for reading only")
    # Holds for a file without tables only; an older one is changed by `parley db upgrade`.
    connection.pragma("auto_vacuum", _INCREMENTAL)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.pragma("foreign_keys", True)
    # Deleted conversations are overwritten, not only unlinked.
    connection.pragma("secure_delete", True)
    return connection


def wait_for_lock(tries: int) -> bool:
    """Waits for another process's lock. SQLite's own waits grow to 100 ms, and the patient would starve."""
    time.sleep(_BUSY_POLL)
    return tries * _BUSY_POLL < _BUSY_SECONDS


def require_space(path: Path) -> None:
    """Raises StoreUnavailable where the file's disk has no room for the turns of the next seconds."""
    try:
        disk = os.statvfs(path.parent)
    except OSError as error:
        raise StoreUnavailable(f"{path}: it is missing or out of reach ({error.strerror})") from error
    free = disk.f_frsize * (disk.f_bavail if os.geteuid() else disk.f_bfree)
    if free < _MIN_FREE_SPACE:
        raise StoreUnavailable(f"{path}: {_HINTS[apsw.FullError]}")


def upgrade(path: Path) -> tuple[int, int]:
    """Takes the file through the migrations that it lacks, and returns its versions before and after.

    All or none of it is done, also where several processes try at once. Raises StoreUnavailable.
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
    """Rewrites a file that an older Parley made so that it can become smaller. It needs as much free space again."""
    if connection.pragma("auto_vacuum") != _INCREMENTAL:
        connection.pragma("auto_vacuum", _INCREMENTAL)
        connection.execute("VACUUM")


def _steps() -> Sequence[Migration]:
    return migrations(__package__)


def _make_schema(connection: apsw.Connection) -> None:
    """Makes the tables in an empty file; one that has tables is left as it is."""
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
    """Gives SQL what it needs to fill in, from messages that are stored already, what later steps keep of them."""

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
