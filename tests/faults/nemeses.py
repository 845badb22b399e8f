"""Faults of workers and the database during a recorder run. Each restores the normal state at its end."""

import asyncio
import os
import random
import resource
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.faults.cluster import PATIENCE, Cluster, Slot
from tests.faults.scenarios import Database

_LEASE_SECONDS = 11.0  # longer than a lease
_STEPS = (
    -3600.0,
    5.0,
    25 * 3600.0,
    31 * 86400.0,
)  # backwards; a little; past the retention of keys; past that of sessions
_FULL_SECONDS = 3.0


class Clocks:
    """The clocks of workers, by libfaketime: the one of each worker reads its offset from a file, again and again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = _libfaketime()

    @property
    def can_step(self) -> bool:
        """Returns whether the library is installed and works on this machine."""
        return self._library is not None

    def environment(self, worker: int) -> dict[str, str]:
        """Returns what a worker's process needs in its environment, with a clock that is right."""
        if self._library is None:
            return {}
        self.step(worker, 0.0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(worker)),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # otherwise waits on conditions take several times as long
            "NO_FAKE_STAT": "1",
        }

    def step(self, worker: int, seconds: float) -> None:
        """Sets how far a worker's wall clock is ahead."""
        file = self._file(worker)
        new = file.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        new.replace(file)

    def _file(self, worker: int) -> Path:
        return self._folder / f"clock-{worker}"


@dataclass(frozen=True)
class Nemeses:
    """The nemeses of a run, by name. `chance` decides about victims and times."""

    cluster: Cluster
    clocks: Clocks
    database: Database | None
    chance: random.Random

    def all(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Returns the nemeses that this run supports."""
        found: dict[str, Callable[[], Awaitable[None]]] = {"kill": self._kill, "stop": self._stop, "hup": self._hup}
        if self.clocks.can_step:
            found["clock"] = self._clock
        if self.database is None:
            return found | {"full": self._full}
        return found | {"database-kill": self._kill_database, "database-freeze": self._freeze_database}

    async def _kill(self) -> None:
        """Kills a worker, and starts it again."""
        slot = self._victim()
        await slot.kill()
        await asyncio.sleep(self.chance.random())
        await slot.start()

    async def _stop(self) -> None:
        """Stops a worker for longer than its leases last."""
        pids = self._victim().worker_pids()
        _signal(pids, signal.SIGSTOP)
        try:
            await asyncio.sleep(_LEASE_SECONDS)
        finally:
            _signal(pids, signal.SIGCONT)

    async def _hup(self) -> None:
        """Has a worker drain its calls and stop, as `parley serve` does at SIGHUP, and starts it again."""
        slot = self._victim()
        assert slot.process is not None
        slot.process.send_signal(signal.SIGHUP)
        await asyncio.wait_for(slot.process.wait(), PATIENCE)
        await slot.start()

    async def _clock(self) -> None:
        """Steps a worker's wall clock, and later back."""
        worker = self.cluster.slots.index(self._victim())
        self.clocks.step(worker, self.chance.choice(_STEPS))
        await asyncio.sleep(3.0 + 2.0 * self.chance.random())
        self.clocks.step(worker, 0.0)

    async def _full(self) -> None:
        """Limits the size of a worker's files, to simulate a full disk."""
        pids = self._victim().worker_pids()
        for pid in pids:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        await asyncio.sleep(_FULL_SECONDS)
        for pid in pids:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    async def _kill_database(self) -> None:
        assert self.database is not None
        await self.database.kill()
        await asyncio.sleep(self.chance.random())
        await self.database.start()

    async def _freeze_database(self) -> None:
        assert self.database is not None
        await self.database.freeze(1.0 + 3.0 * self.chance.random())

    def _victim(self) -> Slot:
        return self.chance.choice(self.cluster.slots)


def _libfaketime() -> Path | None:
    """Returns the library of the package `libfaketime`, which brings it along for x86-64."""
    package = find_spec("libfaketime")
    if package is None or package.origin is None or os.uname().machine != "x86_64":
        return None
    library = Path(package.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return library if library.exists() else None


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
