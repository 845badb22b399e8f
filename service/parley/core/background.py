"""Work that a worker does again and again while it runs."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from parley.core.errors import ParleyError

_log = structlog.get_logger()


class PeriodicTask:
    """Does `work` about every `seconds`, in a task of its own; `name` is its name in the log.

    A failure ends nothing: it is logged when it begins and when it is over, and not at each try. With `jitter` every
    pause is up to so much of it longer or shorter, so that many workers do not all come at once.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], seconds: float, jitter: float = 0.0) -> None:
        self._name = name
        self._work = work
        self._seconds = seconds
        self._jitter = jitter
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Begins, after a first pause; a second time does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends, in the middle of the work too; returns when that has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds * random.uniform(1 - self._jitter, 1 + self._jitter))  # noqa: S311
            try:
                await self._work()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next try may do
                self._record_failure(error)
            else:
                self._record_success()

    def _record_failure(self, error: Exception) -> None:
        if self._failing:
            return
        self._failing = True
        if isinstance(error, ParleyError):
            _log.warning("failing", what=self._name, error=error.message, cause=error.cause)
        else:
            _log.error("failing", what=self._name, exc_info=error)

    def _record_success(self) -> None:
        if self._failing:
            self._failing = False
            _log.info("working again", what=self._name)
