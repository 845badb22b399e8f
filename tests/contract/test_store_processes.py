# ruff: noqa: ASYNC221 - a test may wait for its processes
"""Tests of an SQLite store with several processes: fairness, and durability when they are killed."""

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from parley.core.errors import SessionBusy
from parley.core.ports import SessionFilter
from parley.stores.sqlite import SqliteStore
from parley.stores.sqlite.clock import machine_uptime
from tests.contract.stores import LEASE, begin, charge, converse, texts

ROOT = Path(__file__).parents[2]


class TestDurability:
    """Tests of the durability of acknowledged turns."""

    async def test_every_commit_is_synced(self, tmp_path: Path) -> None:
        """Each commit is synced to disk before its acknowledgement, as the system calls show."""
        trace = tmp_path / "trace"
        if not _has_strace():
            pytest.skip("strace is not installed")
        code = (
            "import asyncio, os, sys, pathlib\n"
            "from parley.stores.sqlite import SqliteStore\n"
            "from parley.core.ports import Account, ApiKey\n"
            "from tests.keys import event\n"
            "async def main():\n"
            "    store = SqliteStore(pathlib.Path(sys.argv[1]))\n"
            "    for n in range(5):\n"
            "        await store.add_key(ApiKey(f'key_{n}', 'n', Account('a', 'pro'), bytes([n]) * 32, (), 1), event)\n"
            "        os.write(1, b'acknowledged')\n"
            "asyncio.run(main())\n"
        )
        command = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync,write", "-o", str(trace), sys.executable, "-c"]
        subprocess.run([*command, code, str(tmp_path / "parley.db")], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        events = [
            "sync" if "-wal>" in line else "acknowledged"
            for line in trace.read_text().splitlines()
            if ("sync(" in line and "-wal>" in line) or '"acknowledged"' in line
        ]
        assert 5 == events.count("acknowledged")
        for index, event in enumerate(events):
            assert "sync" == event or "sync" == events[index - 1]

    async def test_kills_lose_nothing(self, file: Path) -> None:
        """No acknowledged turn of killed writers is lost, repeated or out of order."""
        acknowledged: dict[str, int] = {}
        for life in range(4):
            workers = [_start(file, f"{life}-{number}", sessions=4) for number in range(3)]
            for worker in workers:
                _read_turns(worker, 40 + 7 * life, acknowledged)
            for worker in workers:
                worker.send_signal(signal.SIGKILL)
                _read_turns(worker, None, acknowledged)
                worker.wait()
        assert 4 * 3 * 4 == len(acknowledged)
        store = SqliteStore(file)
        for session, last in acknowledged.items():
            await _check_session(store, session, last)
        await store.close()
        assert "ok" == apsw.Connection(str(file)).pragma("integrity_check")

    async def test_a_crash_leaves_sessions_usable(self, file: Path) -> None:
        """After a worker is killed, others write immediately, and in its session after the lease expires."""
        code = (
            "import asyncio, os, pathlib, signal, sys\n"
            "from parley.stores.sqlite import SqliteStore\n"
            "from tests.contract.stores import begin, converse\n"
            "async def main():\n"
            "    store = SqliteStore(pathlib.Path(sys.argv[1]))\n"
            "    await converse(store, 's', 'q', 'a', new=True)\n"
            "    await begin(store, 's', 'lost')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
            "asyncio.run(main())\n"
        )
        frozen = machine_uptime()
        worker = subprocess.run([sys.executable, "-c", code, str(file)], cwd=ROOT, check=False)
        assert -signal.SIGKILL == worker.returncode
        passed = 0.0
        store = SqliteStore(file, uptime=lambda: frozen + passed)
        await converse(store, "mine", "q", "a", new=True)
        with pytest.raises(SessionBusy):
            await begin(store, "s", "too early")
        passed = 2 * LEASE
        assert ["q", "a"] == texts((await begin(store, "s", "again")).history)
        await store.close()


class TestManyProcesses:
    """Tests of several processes with one file."""

    async def test_first_opening_races(self, file: Path) -> None:
        """Processes that create the file at the same time share one store."""
        workers = [_start(file, f"w{number}", sessions=1) for number in range(4)]
        for worker in workers:
            _read_turns(worker, 1, {})
        for worker in workers:
            _, errors = worker.communicate()
            assert (0, "") == (worker.returncode, errors)

    async def test_one_bucket_for_all(self, file: Path) -> None:
        """Processes that exhaust a limit at the same time get no more than one bucket holds."""
        code = (
            "import asyncio, pathlib, sys\n"
            "from parley.stores.sqlite import SqliteStore\n"
            "from tests.contract.stores import charge\n"
            "async def main():\n"
            "    store = SqliteStore(pathlib.Path(sys.argv[1]), lambda: 1.7e9)\n"
            "    sys.stdin.read(1)\n"
            "    made = [await store.reserve([charge(1, per_minute=100)]) for _ in range(60)]\n"
            "    print(sum(one.granted for one in made))\n"
            "    await store.close()\n"
            "asyncio.run(main())\n"
        )
        workers = [_popen("-c", code, str(file)) for _ in range(3)]
        granted = [int(worker.communicate("!")[0]) for worker in workers]
        assert 100 == sum(granted)
        store = SqliteStore(file, lambda: 1.7e9)
        assert (0,) == (await store.reserve([charge(0, per_minute=100)])).remaining
        await store.close()

    async def test_writers_alternate(self, file: Path) -> None:
        """A process that writes continuously does not starve other writers."""
        store = SqliteStore(file)
        busy = _start(file, "busy", sessions=64)
        _read_turns(busy, 1, {})
        before = await _turns_of(store, "busy-")
        for number in range(30):
            await converse(store, f"mine-{number}", "q", "a", new=True)
        # 60 commits of this process; the fair share of the other is 60 more, with up to 64 jobs each.
        others = await _turns_of(store, "busy-") - before
        busy.communicate()
        await store.close()
        assert 0 < others < 3 * 30 * 64


def _has_strace() -> bool:
    with suppress(OSError, subprocess.CalledProcessError):
        subprocess.run(["strace", "-o", "/dev/null", "true"], check=True, capture_output=True)
        return True
    return False


def _start(file: Path, name: str, *, sessions: int) -> "subprocess.Popen[str]":
    """Starts a process that runs turns in its sessions."""
    return _popen("-m", "tests.contract.store_worker", str(file), name, str(sessions))


def _popen(*arguments: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _read_turns(worker: "subprocess.Popen[str]", count: int | None, acknowledged: dict[str, int]) -> None:
    """Reads the given number of acknowledgements, or all; an incomplete line is not an acknowledgement."""
    assert worker.stdout is not None
    while count is None or count > 0:
        line = worker.stdout.readline()
        if not line.endswith("\n"):
            assert count is None, worker.stderr and worker.stderr.read()
            return
        session, number = line.split()
        acknowledged[session] = int(number)
        count = None if count is None else count - 1


async def _check_session(store: SqliteStore, session: str, last: int) -> None:
    """Checks that the turns 1 to `last` are completed and in order; at most one more is unacknowledged."""
    page, token = await store.list_messages("ada", session, page_size=1000, page_token=None)
    assert token is None
    completed = [one for one in page if one.state == "completed"]
    turns = len(completed) // 2
    assert last <= turns <= last + 1
    expected = [f"{kind} {number}" for number in range(1, turns + 1) for kind in ("q", "a")]
    assert expected == [one.message.content.string_value for one in completed]
    assert len(page) - len(completed) <= 1


async def _turns_of(store: SqliteStore, prefix: str) -> int:
    """Counts the turns of all sessions with this prefix."""
    page, _ = await store.list_sessions("ada", SessionFilter(), page_size=1000, page_token=None)
    return sum(session.turn_count for session in page if session.id.startswith(prefix))
