"""Active health checks: the targets of a backend get no calls while its check fails."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from parley.config import HealthCheck
from parley.core.background import PeriodicTask
from parley.core.errors import LocalResourcesExhausted, ParleyError
from parley.core.ports import Backend
from parley.core.routing.targets import LiveTarget

_JITTER = 0.2

_log = structlog.get_logger()


async def _ignore() -> None:
    pass


class HealthChecker:
    """Checks backends periodically and updates the health of their targets.

    Args:
        backends: The backends, by name.
        checks: The configured checks, by the name of the backend.
        targets: The targets of all models.
        on_change: Called after the health of a backend has changed.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        checks: Mapping[str, HealthCheck],
        targets: Sequence[LiveTarget],
        on_change: Callable[[], Awaitable[None]] = _ignore,
    ) -> None:
        self._checks = [
            _BackendCheck(name, backends[name], check, [one for one in targets if one.backend_name == name], on_change)
            for name, check in checks.items()
        ]

    def start(self) -> None:
        """Starts the checks, each in its own interval."""
        for check in self._checks:
            check.task.start()

    async def stop(self) -> None:
        """Stops the checks."""
        for check in self._checks:
            await check.task.stop()


class _BackendCheck:
    """The periodic check of one backend."""

    def __init__(
        self,
        name: str,
        backend: Backend,
        check: HealthCheck,
        targets: Sequence[LiveTarget],
        on_change: Callable[[], Awaitable[None]],
    ) -> None:
        self._on_change = on_change
        self._name = name
        self._backend = backend
        self._seconds = check.timeout
        self._targets = targets
        self._healthy = True
        self.task = PeriodicTask(f"the health check of {name}", self._check, check.interval, _JITTER)

    async def _check(self) -> None:
        try:
            cause = await self._failure()
        except LocalResourcesExhausted as error:
            _log.warning("the health check could not be made", backend=self._name, cause=error.cause)
            return
        if (cause is None) is self._healthy:
            return
        self._healthy = cause is None
        report = _log.info if self._healthy else _log.warning
        report("backend changed", backend=self._name, healthy=self._healthy, cause=cause)
        for target in self._targets:
            target.set_health(healthy=self._healthy)
        await self._on_change()

    async def _failure(self) -> str | None:
        """Checks the backend. Returns the cause of a failure; None if the backend is healthy.

        Raises:
            LocalResourcesExhausted: This machine cannot make the check, so nothing is known about the backend.
        """
        try:
            async with asyncio.timeout(self._seconds):
                await self._backend.check()
        except LocalResourcesExhausted:
            raise
        except ParleyError as error:
            return error.cause or error.message
        except TimeoutError:
            return f"no answer within {self._seconds:g} s"
        return None
