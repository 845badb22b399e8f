"""The result of a flood, the bounds, and the table."""

from collections.abc import Sequence
from dataclasses import dataclass

MIN_RATE = 0.8
MAX_P99 = 3.0
MIN_QUIET_P99_MS = 15.0
"""A quiet 99th percentile below this one counts as this one: a scheduler's slice is as long."""
MAX_ENVOY_MB = 200.0
MAX_WORKER_GROWTH_MB = 64.0
LARGE_CALLS = {"keyed-texts": (300.0, 128.0)}
"""The bounds of Envoy and of a worker's growth for floods of complete large calls, which both convert.

Envoy's is half of the heap of 512 MiB, and what it needs without calls.
"""
_TITLES = ("flood", "rate", "p99 ms", "failed", "envoy MB", "worker MB", "after MB", "result")


@dataclass(frozen=True, slots=True)
class Result:
    """What good calls and processes went through during one flood. Memory is in MB, `growth` is that of a worker."""

    flood: str
    quiet_rate: float
    rate: float
    quiet_p99_ms: float
    p99_ms: float
    failed: int
    envoy_mb: float
    worker_mb: float
    growth_mb: float
    kept_mb: float

    def broken(self) -> list[str]:
        """Returns the bounds that do not hold."""
        envoy_mb, worker_mb = LARGE_CALLS.get(self.flood, (MAX_ENVOY_MB, MAX_WORKER_GROWTH_MB))
        bounds = (
            ("failed", self.failed == 0),
            ("rate", self.rate >= MIN_RATE * self.quiet_rate),
            ("p99", self.p99_ms <= MAX_P99 * max(self.quiet_p99_ms, MIN_QUIET_P99_MS)),
            ("envoy", self.envoy_mb < envoy_mb),
            ("worker", self.growth_mb <= worker_mb),
            ("release", self.kept_mb <= worker_mb),
        )
        return [name for name, holds in bounds if not holds]

    def cells(self) -> tuple[str, ...]:
        """Returns the row of the table."""
        return (
            self.flood,
            f"{self.quiet_rate:.0f} → {self.rate:.0f}",
            f"{self.quiet_p99_ms:.0f} → {self.p99_ms:.0f}",
            str(self.failed),
            f"{self.envoy_mb:.0f}",
            f"{self.worker_mb:.0f}",
            f"{self.worker_mb - self.growth_mb + self.kept_mb:.0f}",
            ", ".join(self.broken()) or "holds",
        )


def table(results: Sequence[Result]) -> str:
    """Returns the results as a Markdown table."""
    rows = [_TITLES, tuple("---" for _ in _TITLES), *(result.cells() for result in results)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
