"""Periodic background tasks of a worker."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from parley.core.errors import ParleyError

_TICK_SECONDS = 0.5
_OFFSET = random.uniform(0, _TICK_SECONDS)  # noqa: S311 - no secret; workers do not run in step

_log = structlog.get_logger()


def length_of_pause(now: float, seconds: float) -> float:
    """Returns the length of a pause of about `seconds`, which ends at a common time of the tasks without jitter.

    An idle worker wakes up twice a second for all of them. A pause shorter than half a second is exact.

    Args:
        now: The event loop's time.
        seconds: The requested length; the returned one differs by at most a quarter of a second.
    """
    if seconds < _TICK_SECONDS:
        return seconds
    return round((now + seconds - _OFFSET) / _TICK_SECONDS) * _TICK_SECONDS + _OFFSET - now


async def pause(seconds: float) -> None:
    """Pauses for about `seconds`; see `length_of_pause`."""
    await asyncio.sleep(length_of_pause(asyncio.get_running_loop().time(), seconds))


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
            seconds: The pause before each run; see `length_of_pause`.
            jitter: The fraction by which each pause is randomly longer or shorter, so that neither workers nor the
                tasks of one run in step. Tasks in step that use the store would each need a connection.
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
                await self._pause()
            self._pauses = True
            try:
                await self._work()
            except Exception as error:  # noqa: BLE001 - the next run may succeed
                self._record_failure(error)
            else:
                self._record_success()

    async def _pause(self) -> None:
        if self._jitter:
            await asyncio.sleep(self._seconds * random.uniform(1 - self._jitter, 1 + self._jitter))  # noqa: S311
        else:
            await pause(self._seconds)

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
