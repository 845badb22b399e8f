"""The states that `parley up` reports to systemd, over a real socket, and the unit file."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parley.supervisor.systemd import notify
from tests.processes import PATIENCE, started

UNIT = Path(__file__).parents[2] / "edge" / "systemd" / "parley.service"


@contextmanager
def notify_socket(address: str) -> Iterator[socket.socket]:
    """Binds a socket as systemd does for a service of `Type=notify`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address)
        channel.settimeout(PATIENCE)
        yield channel


def wait_state(channel: socket.socket, first: str) -> list[str]:
    """Returns the assignments of the next datagram that begins with `first`; skips those of the watchdog."""
    while (state := channel.recv(4096).decode().split("\n")) == ["WATCHDOG=1"] != [first]:
        continue
    assert first == state[0], state
    return state


def test_systemd_learns_each_state(scripted_config: Path, tmp_path: Path) -> None:
    """systemd gets READY with the addresses, WATCHDOG repeatedly, and STOPPING at the end.

    A reload is RELOADING, then READY, also if its configuration is invalid: the old one stays in use.
    """
    config = tmp_path / "parley.yaml"
    config.write_text(scripted_config.read_text())
    address = str(tmp_path / "notify")
    with (
        notify_socket(address) as channel,
        started("--config", str(config), NOTIFY_SOCKET=address, WATCHDOG_USEC="200000") as parley,
    ):
        [status] = wait_state(channel, "READY=1")[1:]
        assert f"STATUS=serving REST {parley.http.removeprefix('http://')}, gRPC {parley.grpc}" == status
        for _ in range(2):
            wait_state(channel, "WATCHDOG=1")
        for notice in ("the new configuration is in use", "the old configuration stays in use"):
            parley.process.send_signal(signal.SIGHUP)
            [time] = wait_state(channel, "RELOADING=1")[1:]
            assert time.removeprefix("MONOTONIC_USEC=").isdecimal()
            wait_state(channel, "READY=1")
            assert notice in parley.log
            config.write_text("models: 7\n")
        parley.stop()
        wait_state(channel, "STOPPING=1")


def test_the_socket_may_have_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that begins with @ is abstract: its first byte is zero."""
    name = f"parley-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with notify_socket(f"\0{name}") as channel:
        notify("READY=1", "STATUS=here")
        assert b"READY=1\nSTATUS=here" == channel.recv(100)


@pytest.mark.parametrize("address", ["", "vsock:2:1", "/nonexistent/notify"])
def test_a_missing_systemd_is_ignored(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Nothing fails without a socket, with one of another kind, or with one that no longer exists."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


def test_the_unit_is_valid_and_hardened(tmp_path: Path) -> None:
    """systemd accepts the unit file without a warning, and rates its exposure below 2 of 10."""
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is missing; install the Debian package systemd")
        pytest.skip("systemd-analyze is missing")
    unit = tmp_path / "parley.service"
    unit.write_text(UNIT.read_text().replace("/opt/parley/bin/parley", "/bin/true"))  # systemd looks for the program
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (0, "") == (verified.returncode, verified.stderr)
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == rated.returncode, rated.stdout
