"""PostgreSQL kept by Patroni with etcd, on several machines: Debian's packages patroni, etcd-server, postgresql."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

from tests.nodes.network import PATIENCE, Machine

_USER = "postgres"
_SCOPE = "drill"
_TTL = 20  # seconds, the least that Patroni allows, after which a silent primary is replaced


class Member:
    """A machine with one member of etcd, and a PostgreSQL that Patroni runs."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.name = machine.name
        self.folder = folder
        self._log = folder / "database.log"

    def start_etcd(self, members: Sequence["Member"]) -> None:
        """Starts the member of etcd."""
        own, peer = (f"http://{self.machine.address}:{port}" for port in (2379, 2380))
        cluster = ",".join(f"{one.name}=http://{one.machine.address}:2380" for one in members)
        options = {
            "name": self.name,
            "data-dir": str(self.folder / "etcd"),
            "listen-client-urls": own,
            "advertise-client-urls": own,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": cluster,
            "heartbeat-interval": "300",
            "election-timeout": "3000",
            "pre-vote": "true",  # otherwise a member that is connected again has the leader replaced
            "log-level": "error",
        }
        self.machine.start(["etcd", *(f"--{key}={value}" for key, value in options.items())], self.folder / "etcd.log")

    def start_patroni(self, members: Sequence["Member"]) -> None:
        """Starts Patroni, which starts PostgreSQL."""
        self.folder.chmod(0o755)
        (self.folder / "postgres").mkdir(exist_ok=True)
        config = self.folder / "postgres" / "patroni.json"
        config.write_text(json.dumps(self._config(members)))
        for path in (config.parent, config):
            shutil.chown(path, _USER, _USER)
        self.machine.start(["patroni", str(config)], self._log, user=_USER, PATH=os.environ["PATH"], HOME="/tmp")

    def kill(self) -> None:
        """Kills PostgreSQL with all its processes, as the kernel does without memory. Patroni goes on."""
        with suppress(FileNotFoundError, ProcessLookupError):
            pid = int((self.folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for victim in (pid, *map(int, children)):
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)

    def status(self) -> dict[str, Any]:
        """Returns what Patroni says about its PostgreSQL; {} if it does not answer."""
        try:
            with urlopen(f"http://{self.machine.address}:8008/patroni", timeout=2) as response:
                return dict(json.load(response))
        except (OSError, ValueError) as error:
            body = getattr(error, "read", lambda: b"{}")()
            with suppress(ValueError):
                return dict(json.loads(body))
            return {}

    def _config(self, members: Sequence["Member"]) -> dict[str, Any]:
        address, folder = self.machine.address, self.folder / "postgres"
        programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
        parameters = {
            "max_connections": 200,
            "wal_log_hints": "on",
            "wal_sender_timeout": "5s",
            "wal_keep_size": "1GB",  # pg_rewind reads the log since the last common checkpoint
        }
        return {
            "scope": _SCOPE,
            "name": self.name,
            "restapi": {"listen": f"{address}:8008", "connect_address": f"{address}:8008"},
            "etcd3": {"hosts": [f"{one.machine.address}:2379" for one in members]},
            "bootstrap": {
                "dcs": {
                    "ttl": _TTL,
                    "loop_wait": 2,
                    "retry_timeout": 5,
                    "synchronous_mode": True,  # the standby that may become the primary has all that was acknowledged
                    "master_start_timeout": 0,  # a primary that was killed is replaced at once
                    "postgresql": {"use_pg_rewind": True, "parameters": parameters},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}],
            },
            "postgresql": {
                "listen": f"{address}:5432",
                "connect_address": f"{address}:5432",
                "data_dir": str(folder / "data"),
                "bin_dir": str(programs),
                "pgpass": str(folder / "pgpass"),
                "parameters": {"unix_socket_directories": str(folder)},
                "authentication": {
                    "superuser": {"username": _USER, "password": "drill"},
                    "replication": {"username": "replicator", "password": "drill"},
                    "rewind": {"username": "rewinder", "password": "drill"},
                },
                "pg_hba": [
                    "local all all trust",
                    "host replication replicator 10.213.0.0/16 trust",
                    "host all all 10.213.0.0/16 trust",
                ],
            },
            "watchdog": {"mode": "off"},
        }


class PostgresCluster:
    """The members, of which one is the primary."""

    def __init__(self, members: Sequence[Member], log: Path) -> None:
        self.members = members
        self._log = log

    @property
    def url(self) -> str:
        """Returns the URL of the database, with all servers."""
        hosts = ",".join(f"{member.machine.address}:5432" for member in self.members)
        return f"postgresql://{_USER}@{hosts}/{_USER}"

    def start(self) -> None:
        """Starts all members; returns when there is a primary, and two standbys follow it, one synchronously."""
        for member in self.members:
            member.start_etcd(self.members)
        for member in self.members:
            member.start_patroni(self.members)
        self.wait_complete()

    def wait_complete(self, seconds: float = 3 * PATIENCE) -> None:
        """Waits for a primary with two standbys. Raises AssertionError."""
        ends = time.monotonic() + seconds
        while not self._is_complete():
            assert time.monotonic() < ends, "PostgreSQL has no primary with two standbys"
            time.sleep(0.5)

    def primary(self) -> Member | None:
        """Returns the present primary; None without one."""
        found = [one for one in self.members if one.status().get("role") in {"master", "primary"}]
        return found[0] if found else None

    def standby(self) -> Member:
        """Returns the synchronous standby."""
        for member in self.members:
            if member.status().get("sync_standby"):
                return member
        raise AssertionError("PostgreSQL has no synchronous standby")

    def switch_over(self) -> None:
        """Makes the synchronous standby the primary, as for maintenance."""
        primary, standby = self.primary(), self.standby()
        assert primary is not None
        config = str(primary.folder / "postgres" / "patroni.json")
        command = ["patronictl", "-c", config, "switchover", "--force", "--primary", primary.name]
        inside = ["ip", "netns", "exec", primary.machine.name, *command, "--candidate", standby.name]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=PATIENCE, check=False)
        with self._log.open("a") as log:
            log.write(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr

    def _is_complete(self) -> bool:
        states = [member.status() for member in self.members]
        roles = sorted(str(state.get("role")) for state in states if state.get("state") == "running")
        return roles in (["master", "replica", "replica"], ["primary", "replica", "replica"]) and any(
            state.get("sync_standby") for state in states
        )


def require_programs() -> None:
    """Raises SystemExit if a program is missing."""
    missing = [name for name in ("patroni", "patronictl", "etcd", "ip", "setpriv") if shutil.which(name) is None]
    if missing or not list(Path("/usr/lib/postgresql").glob("*/bin")):
        raise SystemExit("the drill needs Debian's packages patroni, etcd-server, postgresql and iproute2")
    if os.geteuid() != 0:
        raise SystemExit("the drill needs root, for network namespaces")


def write_yaml(path: Path, content: Any) -> None:
    """Writes a configuration, replacing the file at once."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(yaml.safe_dump(content, sort_keys=False))
    draft.replace(path)
