"""The metric of the event loop's lag."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from parley.config.loader import load
from parley.metrics.prometheus import text_of
from parley.metrics.worker import WorkerMetrics


async def test_a_blocked_event_loop_is_measured(tmp_path: Path) -> None:
    """The lag is what a timer is late by: about the time for which something has blocked the loop."""
    metrics = WorkerMetrics(load(None), ())
    runtime: Any = SimpleNamespace(checks=dict, collect=lambda: iter(()))
    async with metrics.serving(tmp_path / "metrics.sock", runtime):
        await asyncio.sleep(0)  # the measurement begins
        time.sleep(1.1)  # noqa: ASYNC251 - what is measured
        await asyncio.sleep(0.01)
    lines = dict(line.rpartition(" ")[::2] for line in text_of(metrics.registry).decode().splitlines())
    assert 1 == float(lines["parley_event_loop_lag_seconds_count"])
    assert 0 == float(lines['parley_event_loop_lag_seconds_bucket{le="0.25"}'])
    assert 0.3 < float(lines["parley_event_loop_lag_seconds_sum"])
