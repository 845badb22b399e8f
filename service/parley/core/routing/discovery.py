"""Reads the lists of models of backends with `discover: true`, at the start and every five minutes."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from parley.config import Metadata
from parley.core.background import PeriodicTask
from parley.core.ports import Backend
from parley.core.ports.backends import ListsModels
from parley.core.routing.breaker import Clock

_SECONDS = 300.0
_POLL_SECONDS = 1.0  # between two looks at whether the list is due
_RETRY_SECONDS = 15.0
_JITTER = 0.2


Report = Callable[[str, Mapping[str, Metadata]], None]
"""Receives the name of a backend and its list."""


class Discovery:
    """The periodic reading of the list of one backend. The latest list stays while the backend cannot be reached.

    Args:
        name: The name of the backend.
        backend: The backend.
        report: Receives the name of the backend and the list.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        name: str,
        backend: ListsModels,
        report: Report,
        clock: Clock = time.monotonic,
    ) -> None:
        self._name = name
        self._backend = backend
        self._report = report
        self._clock = clock
        self._due = float("-inf")
        self._failure: Exception | None = None
        self._task = PeriodicTask(f"the list of models of {name}", self.read, _POLL_SECONDS, _JITTER, at_once=True)

    def start(self) -> None:
        """Starts the task."""
        self._task.start()

    async def stop(self) -> None:
        """Stops the task."""
        await self._task.stop()

    async def read(self) -> None:
        """Reads the list, unless the latest one is recent. Raises UpstreamError, also in the pause after a failure."""
        if self._clock() >= self._due:
            await self._read()
        if self._failure is not None:
            raise self._failure

    async def _read(self) -> None:
        self._due = self._clock() + _RETRY_SECONDS
        try:
            models = await self._backend.list_models()
        except Exception as error:  # noqa: BLE001 - read() raises it
            self._failure = error
            return
        self._failure = None
        self._due = self._clock() + _SECONDS
        self._report(self._name, models)


@asynccontextmanager
async def discovering(backends: Mapping[str, Backend], report: Report) -> AsyncIterator[None]:
    """Reads the lists of backends until the end of the context; those without a list have none."""
    found = [Discovery(name, one, report) for name, one in backends.items() if isinstance(one, ListsModels)]
    for discovery in found:
        discovery.start()
    try:
        yield
    finally:
        for discovery in found:
            await discovery.stop()
