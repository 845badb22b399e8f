"""All metrics of one worker."""

import asyncio
import platform
from collections.abc import AsyncIterator, Iterator, Sized
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from parley import __version__
from parley.config import Config
from parley.core.background import length_of_pause
from parley.metrics.calls import CallMetrics
from parley.metrics.prometheus import (
    Collector,
    CollectorRegistry,
    GaugeMetricFamily,
    GCCollector,
    Metric,
    ProcessCollector,
)
from parley.metrics.runtime import Runtime
from parley.metrics.series import Histogram
from parley.metrics.server import serving

_LAG_SECONDS = 0.5  # between two measurements of the event loop's lag
_LAG = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class WorkerMetrics(Collector):
    """The metrics of a worker: `calls`, to which calls add, and what is collected at a scrape.

    Args:
        config: The configuration.
        running: The running calls.
    """

    def __init__(self, config: Config, running: Sized) -> None:
        self._running = running
        self.calls = CallMetrics({name: backend.kind for name, backend in config.backends.items()})
        for name, guard in config.guards.items():
            if guard.on_failure == "open":
                self.calls.show_open_failures(name)
        self._lag = Histogram(
            "parley_event_loop_lag_seconds", "How much later than requested the event loop runs a timer.", _LAG
        )
        self._lag_timer: asyncio.TimerHandle | None = None
        self._runtime: Runtime | None = None
        self._collected: list[Metric] = []
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    @asynccontextmanager
    async def serving(self, socket: Path, runtime: Runtime) -> AsyncIterator[None]:
        """Answers scrapes and readiness on a Unix socket, from these parts; see `parley.metrics.server`."""
        self._runtime = runtime
        self._start_lag_timer()
        try:
            async with serving(self._read_runtime, self.registry, socket, runtime.checks):
                yield
        finally:
            if self._lag_timer is not None:
                self._lag_timer.cancel()

    def collect(self) -> Iterator[Metric]:
        """Yields the families, for prometheus-client."""
        yield _build_info()
        yield GaugeMetricFamily("parley_calls_in_flight", "Calls that run now.", len(self._running))
        yield from self._collected
        yield from self.calls.collect()
        yield from self._lag.collect()

    def _read_runtime(self) -> None:
        """Reads the state that only the event loop may read, before the text is made in a thread."""
        if self._runtime is not None:
            self._collected = list(self._runtime.collect())

    def _start_lag_timer(self) -> None:
        """Starts a timer that measures how late it is, and starts the next one.

        Its callback runs before the tasks that wait for the same time.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + length_of_pause(loop.time(), _LAG_SECONDS)
        self._lag_timer = loop.call_at(due, self._measure_lag, due)

    def _measure_lag(self, due: float) -> None:
        self._lag.add(max(0.0, asyncio.get_running_loop().time() - due))
        self._start_lag_timer()


def _build_info() -> GaugeMetricFamily:
    names = ("version", "python", "grpc")
    family = GaugeMetricFamily("parley_build_info", "The versions of the worker; always 1.", labels=names)
    family.add_metric((__version__, platform.python_version(), grpc.__version__), 1)
    return family
