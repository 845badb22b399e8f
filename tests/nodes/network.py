"""Network namespaces as machines, on a bridge of this machine. Needs root and iproute2.

with Network() as network:
    node = network.add("n1")
    process = node.start(["python3", "-m", "http.server"], Path("n1.log"))
    node.cut_off()
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

_PREFIX = "pd"  # of all names, followed by the process id, so that a later drill finds what a killed one has left
_HOSTS = Path("/etc/netns")
PATIENCE = 60.0


def ip(*arguments: str) -> str:
    """Runs `ip`; returns its output. Raises CalledProcessError."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=PATIENCE).stdout


@dataclass
class Machine:
    """A namespace with one address.

    Attributes:
        name: The name of the namespace.
        address: Its IPv4 address.
        link: The end of its cable at the bridge.
        processes: All that `start` has started.
    """

    name: str
    address: str
    link: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, command: Sequence[str], log: Path, *, user: str | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Starts a process here, which the kernel ends with this one; its output is appended to the log."""
        identity = [f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        inside = ["ip", "netns", "exec", self.name, "setpriv", *identity, "--pdeathsig", "KILL", *command]
        with log.open("ab") as output:
            process = subprocess.Popen(
                inside, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment or None, cwd="/"
            )
        self.processes.append(process)
        return process

    def cut_off(self) -> None:
        """Pulls the cable: packets are lost without an answer."""
        ip("link", "set", self.link, "down")

    def connect(self) -> None:
        """Plugs the cable in again."""
        ip("link", "set", self.link, "up")

    def name_hosts(self, names: dict[str, Sequence[str]]) -> None:
        """Makes names known to the processes that start here from now on, in a file `hosts` of their own."""
        folder = _HOSTS / self.name
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{address} {name}" for name, addresses in names.items() for address in addresses]
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def kill_all(self) -> None:
        """Kills every process in the namespace, also the children of ended ones."""
        for pid in ip("netns", "pids", self.name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        for process in self.processes:
            process.wait(PATIENCE)


class Network:
    """A bridge with an address of this machine, to which machines can be added."""

    def __init__(self) -> None:
        self._id = f"{_PREFIX}{os.getpid()}"
        self._subnet = f"10.213.{os.getpid() % 250}"
        self.address = f"{self._subnet}.1"
        self.machines: list[Machine] = []

    def __enter__(self) -> Self:
        _remove_left_behind()
        ip("link", "add", self._id, "type", "bridge")
        ip("addr", "add", f"{self.address}/24", "dev", self._id)
        ip("link", "set", self._id, "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for machine in self.machines:
            machine.kill_all()
        _remove(self._id)

    def add(self, name: str) -> Machine:
        """Adds a machine."""
        machine = Machine(f"{self._id}-{name}", f"{self._subnet}.{len(self.machines) + 11}", f"{self._id}-{name}")
        ip("netns", "add", machine.name)
        self.machines.append(machine)
        ip("link", "add", machine.link, "type", "veth", "peer", "name", "eth0", "netns", machine.name)
        ip("link", "set", machine.link, "master", self._id, "up")
        inside = ("-n", machine.name)
        ip(*inside, "addr", "add", f"{machine.address}/24", "dev", "eth0")
        ip(*inside, "link", "set", "eth0", "up")
        ip(*inside, "link", "set", "lo", "up")
        return machine


def _remove_left_behind() -> None:
    """Removes the networks of drills that were killed."""
    bridges = [line.split(":")[1].strip() for line in ip("-o", "link", "show", "type", "bridge").splitlines()]
    names = {line.split()[0].partition("-")[0] for line in ip("netns", "list").splitlines()}
    for name in {*bridges, *names}:
        owner = name.removeprefix(_PREFIX)
        if name.startswith(_PREFIX) and owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            _remove(name)


def _remove(name: str) -> None:
    """Removes the bridge and the namespaces of a drill, and kills what runs in them."""
    for line in ip("netns", "list").splitlines():
        space = line.split()[0]
        if space.startswith(f"{name}-"):
            Machine(space, "", "").kill_all()
            ip("netns", "delete", space)
            with suppress(FileNotFoundError):
                (_HOSTS / space / "hosts").unlink()
                (_HOSTS / space).rmdir()
    with suppress(subprocess.CalledProcessError):
        ip("link", "delete", name)
