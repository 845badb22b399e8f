"""Supervised processes, with small shell scripts as real processes."""

import asyncio
import os
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from pathlib import Path

import pytest

from parley.supervisor.errors import CommandError
from parley.supervisor.process import Child, backoff, describe_end, spawn


class Script(Child):
    """A shell script that serves once it prints `ready`."""

    def __init__(self, text: str, folder: Path | None = None) -> None:
        super().__init__("the script", folder=folder)
        self.events: list[str] = []
        self.ups: asyncio.Queue[int] = asyncio.Queue()
        self._text = text
        self._ready = asyncio.Event()

    async def spawn(self) -> Process:
        """Runs the script."""
        self._ready.clear()
        process = await spawn(["/bin/sh", "-c", self._text])
        self.listen(process, self._on_line)
        return process

    async def serving(self, _process: Process) -> None:
        """Waits for `ready`."""
        await self._ready.wait()

    def on_serving(self) -> None:
        """Records the call."""
        assert self.process
        self.events.append("up")
        self.ups.put_nowait(self.process.pid)

    def on_stopped(self) -> None:
        """Records the call."""
        self.events.append("down")

    def _on_line(self, line: str) -> None:
        if line == "ready":
            self._ready.set()


def _runs(pid: int) -> bool:
    """Returns whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_child_that_dies_is_started_again() -> None:
    """After kill -9 another process is started, and both changes are reported."""
    child = Script("echo ready; exec sleep 1000")
    await child.start()
    first = await child.ups.get()
    os.kill(first, signal.SIGKILL)
    second = await asyncio.wait_for(child.ups.get(), 60)
    assert first != second
    assert ["up", "down", "up"] == child.events
    await child.stop(5)
    assert not _runs(second)


async def test_a_child_is_stopped_by_sigterm() -> None:
    """SIGTERM lets the process end gracefully, and it is not started again."""
    child = Script("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    await child.start()
    await child.stop(10)
    assert "bye" == child.last_lines[-1]
    assert ["up", "down"] == child.events


async def test_a_child_that_ignores_sigterm_is_killed() -> None:
    """A process that ignores SIGTERM is killed after the grace period."""
    child = Script("trap '' TERM; echo ready; while :; do sleep 0.01; done")
    await child.start()
    pid = await child.ups.get()
    await child.stop(0.1)
    assert not _runs(pid)


async def test_a_child_that_never_serves_fails_with_its_error() -> None:
    """After a few attempts the cause is one line with the exit and the last error."""
    child = Script("echo loading; echo 'error: no such model'; echo bye; exit 3")
    with pytest.raises(CommandError) as caught:
        await child.start()
    assert "the script does not start: exit code 3: error: no such model" == str(caught.value)
    assert [] == child.events


async def test_a_missing_program_fails() -> None:
    """A missing program is reported like any other cause."""

    class Missing(Script):
        async def spawn(self) -> Process:
            return await spawn(["/nonexistent"])

    with pytest.raises(CommandError, match="the script does not start: it cannot be started: No such file"):
        await Missing("").start()


async def test_a_child_is_not_started_on_the_folder_of_others(tmp_path: Path) -> None:
    """A program that replaces a removed run folder by its own could replace the sockets and files in it."""
    theirs, missing = tmp_path / "theirs", tmp_path / "missing"
    theirs.mkdir()
    theirs.chmod(0o777)
    with pytest.raises(CommandError, match=r"cannot be started: .*/theirs must be a folder that only this user owns"):
        await Script("echo ready", theirs).start()
    child = Script("echo ready; exec sleep 1000", missing)
    await child.start()
    assert 0o700 == missing.stat().st_mode & 0o777
    await child.stop(5)


async def test_a_child_can_be_stopped_before_it_serves() -> None:
    """A stop during the start leaves no process."""
    child = Script("echo $$; exec sleep 1000")
    starting = asyncio.create_task(child.start())
    while not child.last_lines:
        await asyncio.sleep(0)
    await child.stop(5)
    await starting
    assert not _runs(int(child.last_lines[0]))


async def test_a_child_has_its_own_session() -> None:
    """A child does not receive a terminal's Ctrl-C, which goes to a process group."""
    child = Script("echo ready; exec sleep 1000")
    await child.start()
    pid = await child.ups.get()
    assert pid == os.getsid(pid)
    await child.stop(5)


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    """After kill -9 of the parent no child remains."""
    program = (
        "import asyncio\n"
        "from parley.supervisor.process import spawn\n"
        "async def main():\n"
        "    child = await spawn(['sleep', '1000'])\n"
        "    print(child.pid, flush=True)\n"
        "    await child.wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        watch = os.pidfd_open(child)
        assert _runs(child)
        parent.kill()
    import select

    assert select.select([watch], [], [], 10)[0]
    os.close(watch)


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0), (1, 0), (2, 0.5), (3, 1), (6, 8), (7, 10), (100, 10)])
def test_restart_delays(failures: int, seconds: float) -> None:
    """The first restart is immediate; further delays double up to 10 s."""
    assert seconds == backoff(failures)


@pytest.mark.parametrize(("code", "text"), [(0, "exit code 0"), (2, "exit code 2"), (-9, "killed by SIGKILL")])
def test_the_description_of_an_end(code: int, text: str) -> None:
    """The description of a killed process names the signal."""
    assert text == describe_end(code)
