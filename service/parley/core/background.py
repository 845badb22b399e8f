"""Periodic background tasks of a worker."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from parley.core.errors import ParleyError

_log = structlog.get_logger()


class PeriodicTask:
    """Runs a function periodically in a task of its own.

    A failure does not end the task. The first of several consecutive failures is logged, and so is the recovery.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        seconds: float,
        jitter: float = 0.0,
        *,
        at_once: bool = False,
    ) -> None:
        """Creates a task that is not started.

        Args:
            name: The name of the task in the log.
            work: The function to run.
            seconds: The pause before each run.
            jitter: The fraction by which each pause is randomly longer or shorter, so that workers do not run in step.
            at_once: Whether the first run has no pause before it.
        """
        self._name = name
        self._work = work
        self._seconds = seconds
        self._jitter = jitter
        self._pauses = not at_once
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Starts the task. Does nothing if it is running."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Cancels the task, a running `work` included, and waits for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def _run(self) -> None:
        while True:
            if self._pauses:
                await asyncio.sleep(self._seconds * random.uniform(1 - self._jitter, 1 + self._jitter))  # noqa: S311
            self._pauses = True
            try:
                await self._work()
            except Exception as error:  # noqa: BLE001 - the next run may succeed
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
