"""A real PgBouncer, Debian's package, in front of a server of `tests.postgres`.

with pooling(server, default_pool_size=2) as pooler:
    url = pooler.url("parley")
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.postgres import PATIENCE, Server
from tests.processes import reserved_port

_CONFIG = """
[databases]
* = host={host} port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
max_client_conn = 1000
{settings}
"""


class PgBouncer:
    """A pooler, running or stopped, with any settings of `pgbouncer.ini`."""

    def __init__(self, server: Server, host: str = "127.0.0.1", files: Path | None = None, **settings: object) -> None:
        """Creates the configuration. `host` is the server's; `files` are copied into the pooler's folder."""
        self.port = reserved_port()
        self._folder = Path(tempfile.mkdtemp(prefix="parley-pgbouncer-"))
        self._server = server
        self._config = self._folder / "pgbouncer.ini"
        lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
        self._config.write_text(_CONFIG.format(host=host, server=server.port, port=self.port, settings=lines))
        self._owner = "pgserver" if os.geteuid() == 0 else None  # PgBouncer does not run as root
        if self._owner is not None:
            shutil.chown(self._folder, self._owner)
            shutil.chown(self._config, self._owner)
        for file in () if files is None else files.iterdir():
            copy = shutil.copy(file, self._folder)
            if self._owner is not None:
                shutil.chown(copy, self._owner)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """The pooler's log."""
        return (self._folder / "log").read_text()

    def url(self, database: str) -> str:
        """Returns the URL of a database through the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Starts the pooler and waits for connections."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program(), str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                user=self._owner,
                group=pwd.getpwnam(self._owner).pw_gid if self._owner else None,
                extra_groups=[] if self._owner else None,
            )
        ends = time.monotonic() + PATIENCE
        while not self._accepts():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < ends, self.log
            time.sleep(0.01)

    def kill(self) -> None:
        """Kills the pooler, which closes all connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(PATIENCE)

    def remove(self) -> None:
        """Stops the pooler and removes its files."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accepts(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def pooling(
    server: Server, host: str = "127.0.0.1", files: Path | None = None, **settings: object
) -> Iterator[PgBouncer]:
    """Runs a pooler in front of the server and removes it at the end. See `PgBouncer` for the arguments."""
    pooler = PgBouncer(server, host, files, **settings)
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.remove()


def _program() -> str:
    """Finds Debian's program, which may not be in PATH. Skips the test without it, except in CI."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        missing = "pgbouncer is not installed; Debian has a package of that name"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found
