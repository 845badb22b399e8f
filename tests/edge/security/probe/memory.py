"""Resident memory of the processes of a Parley."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.load import accounting

_PAGE = os.sysconf("SC_PAGE_SIZE")
_INTERVAL_SECONDS = 0.05
MIB = 2**20


def resident(pid: int) -> int:
    """Returns the resident bytes of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


@dataclass(slots=True)
class Memory:
    """The processes of a Parley by role, and the most memory that Envoy and the largest worker had, in bytes."""

    envoys: list[int]
    workers: list[int]
    envoy: int = 0
    worker: int = 0

    @classmethod
    def of(cls, root: int) -> "Memory":
        """Returns the processes of the supervisor with this process id."""
        roles = {pid: accounting.role(pid, root) for pid in accounting.tree(root)}
        envoys, workers = ([pid for pid, role in roles.items() if role == wanted] for wanted in ("envoy", "worker"))
        return cls(envoys, workers)

    def now(self) -> tuple[int, int]:
        """Returns the bytes of Envoy, and of the largest worker."""
        envoy, worker = (max(map(resident, pids), default=0) for pids in (self.envoys, self.workers))
        return envoy, worker

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Samples the memory while the block runs."""
        task = asyncio.create_task(self._sample())
        try:
            yield
        finally:
            task.cancel()

    async def _sample(self) -> None:
        while True:
            envoy, worker = self.now()
            self.envoy, self.worker = max(self.envoy, envoy), max(self.worker, worker)
            await asyncio.sleep(_INTERVAL_SECONDS)
