"""The state of a worker that is collected at a scrape: targets, connections, sessions, the store, budgets, losses."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from parley.core.ports import Backend, Store
from parley.core.ports.statistics import SECONDS, SIZES, StoreStatistics
from parley.core.routing.router import Router
from parley.core.routing.targets import LiveTarget
from parley.core.sessions.store_monitor import StoreMonitor
from parley.core.sessions.turns import Turns
from parley.core.usage.budgets import BudgetMonitor
from parley.metrics.prometheus import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from parley.metrics.series import MAX_HISTOGRAMS, add_histogram

if TYPE_CHECKING:  # loaded only where a cache is configured
    from parley.core.cache.answers import AnswerCache

_STATES = ("closed", "half_open", "open")


@dataclass(frozen=True, slots=True)
class Losses:
    """The numbers of what a worker could neither write nor deliver.

    Attributes:
        usage: Returns the number of calls whose usage was dropped.
        alerts: Returns the number of alerts of budgets that were given up.
        log_lines: Returns the number of log lines that were dropped.
    """

    usage: Callable[[], int]
    alerts: Callable[[], int]
    log_lines: Callable[[], int]

    def collect(self) -> Iterator[Metric]:
        """Yields the families."""
        yield _counter("parley_usage_lost", "Calls whose usage could not be written.", self.usage())
        yield _counter("parley_log_lines_lost", "Log lines that could not be written.", self.log_lines())
        yield _counter("parley_budget_alerts_undelivered", "Alerts of budgets that were given up.", self.alerts())


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts of a worker whose state is collected.

    Attributes:
        router: Has the targets. Those beyond the first `MAX_HISTOGRAMS` are left out, so that a scrape stays bounded.
        backends: The backends, by name.
        turns: Has the leases.
        budgets: Has the alerts.
        losses: Counts what was lost.
        cache: Has the kept answers; None if no model has a cache.
        store: Has statistics, unless it is one of a test.
        monitor: Checks whether the store is available.
        is_draining: Returns whether the worker ends when its calls have finished.
        has_model: Returns whether a model can be called.
    """

    router: Router
    backends: Mapping[str, Backend]
    turns: Turns
    budgets: BudgetMonitor
    losses: Losses
    cache: "AnswerCache | None"
    store: Store
    monitor: StoreMonitor
    is_draining: Callable[[], bool]
    has_model: Callable[[], bool]

    def checks(self) -> dict[str, str]:
        """Returns the problem of each check of readiness, which is empty for one that passes."""
        return {
            "accepts-calls": "the worker ends when its calls have finished" if self.is_draining() else "",
            "store": self.monitor.cause or "",
            "models": "" if self.has_model() else "no model can be called: the health checks of all targets fail",
        }

    def collect(self) -> Iterator[Metric]:
        """Yields the families. Runs on the event loop, whose state it reads."""
        yield from _targets(list(islice(self.router.targets, MAX_HISTOGRAMS)))
        yield from self._connections()
        yield from self._sessions()
        yield from self._store()
        yield self._alerts()
        yield from self.losses.collect()
        yield from _cache(self.cache)
        yield _gauge("parley_draining", "1 while the worker ends: its calls finish.", float(self.is_draining()))

    def _connections(self) -> Iterator[Metric]:
        connections = GaugeMetricFamily(
            "parley_upstream_connections", "Connections to backends.", labels=("backend", "state")
        )
        waiting = GaugeMetricFamily(
            "parley_upstream_waiting", "Calls that wait for a connection to a backend.", labels=("backend",)
        )
        for name, backend in islice(self.backends.items(), MAX_HISTOGRAMS):
            state = getattr(backend, "connection_counts", None)  # backends that use HTTP have it
            if state is not None:
                used, idle, queued = state
                connections.add_metric((name, "used"), used)
                connections.add_metric((name, "idle"), idle)
                waiting.add_metric((name,), queued)
        yield from (connections, waiting, self._keys())

    def _keys(self) -> Metric:
        keys = GaugeMetricFamily(
            "parley_backend_keys",
            "Keys of backends with several (`api_keys`): those that work (`working`), and those left out (`left_out`).",
            labels=("backend", "state"),
        )
        for name, backend in islice(self.backends.items(), MAX_HISTOGRAMS):
            counts = getattr(backend, "key_counts", None)  # backends with several keys have it
            for state, count in zip(("working", "left_out"), counts or (), strict=False):
                keys.add_metric((name, state), count)
        return keys

    def _sessions(self) -> Iterator[Metric]:
        turns = self.turns
        yield _gauge("parley_leases_held", "Calls that hold a session or an idempotency key.", turns.held)
        yield _gauge("parley_session_queue_length", "Calls that wait for their session.", turns.queue.waiting)
        lost = turns.leases_lost
        yield _counter("parley_leases_lost", "Calls that lost the lease of their session before their end.", lost)

    def _store(self) -> Iterator[Metric]:
        available = float(self.monitor.is_available)
        yield _gauge("parley_store_available", "1 if the latest check of the store succeeded.", available)
        sizes = HistogramMetricFamily("parley_store_commit_size", "Changes of calls in one commit of the store.")
        statistics = getattr(self.store, "statistics", None) or StoreStatistics()
        add_histogram(sizes, (), SIZES, statistics.sizes)
        seconds = HistogramMetricFamily(
            "parley_store_commit_duration_seconds", "Duration of a transaction of the store, with its commit."
        )
        add_histogram(seconds, (), SECONDS, statistics.seconds)
        reads = HistogramMetricFamily("parley_store_read_duration_seconds", "Duration of reads of the store.")
        add_histogram(reads, (), SECONDS, statistics.reads)
        yield from (sizes, seconds, reads)
        yield _gauge("parley_store_waiting", "Calls that wait for an unavailable store.", statistics.waiting)
        waits = CounterMetricFamily(
            "parley_store_waits",
            "Calls that needed an unavailable store, by whether it was available within the time that they may wait.",
            labels=("outcome",),
        )
        waits.add_metric(("available",), statistics.waits_ended)
        waits.add_metric(("failed",), statistics.waits_failed)
        yield waits

    def _alerts(self) -> Metric:
        alerts = CounterMetricFamily(
            "parley_budget_alerts", "Budgets that reached a share of their limit.", labels=("limit", "share")
        )
        for (limit, share), count in self.budgets.alerts.items():
            alerts.add_metric((limit, str(share)), count)
        return alerts


def _cache(cache: "AnswerCache | None") -> Iterator[Metric]:
    writes = CounterMetricFamily(
        "parley_cache_writes",
        "New answers of models with a cache, by what became of them.",
        labels=("model", "result"),
    )
    kept = CounterMetricFamily("parley_cache_kept_bytes", "Bytes of the answers that were kept.", labels=("model",))
    count = cache.read_failures if cache is not None else 0
    failures = _counter("parley_cache_read_failures", "Reads of kept answers that failed or took too long.", count)
    if cache is not None:
        for labels, count in cache.writes.items():
            writes.add_metric(labels, count)
        for model, size in cache.kept_bytes.items():
            kept.add_metric((model,), size)
    yield from (writes, kept, failures)


def _targets(targets: Collection[LiveTarget]) -> Iterator[Metric]:
    breakers = GaugeMetricFamily(
        "parley_breaker_state", "1 for the state of the target's breaker.", labels=("target", "state")
    )
    healthy = GaugeMetricFamily("parley_target_healthy", "Whether the latest health check passed.", labels=("target",))
    slots = GaugeMetricFamily("parley_target_slots", "Calls that a target may have at a time.", labels=("target",))
    used = GaugeMetricFamily("parley_target_slots_used", "Slots of a target in use.", labels=("target",))
    queued = GaugeMetricFamily("parley_target_queue_length", "Calls that wait for a slot.", labels=("target",))
    for target in targets:
        state = _state(target)
        for name in _STATES:
            breakers.add_metric((target.name, name), name == state)
        healthy.add_metric((target.name,), target.healthy)
        if not target.has_no_slots:
            slots.add_metric((target.name,), target.max_calls or 0)
            used.add_metric((target.name,), target.slots_used)
            queued.add_metric((target.name,), target.queued)
    yield from (breakers, healthy, slots, used, queued)


def _state(target: LiveTarget) -> str:
    breaker = target.shown_breakers.shared
    if breaker.is_half_open:
        return "half_open"
    return "closed" if breaker.is_closed else "open"


def _counter(name: str, documentation: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, documentation, value=value)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=value)
