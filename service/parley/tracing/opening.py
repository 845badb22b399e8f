"""Opens the tracer of a worker. Without an endpoint, nothing of OpenTelemetry is imported."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from parley.config import Config, SqliteConfig
from parley.core.ports import Store, Tracer
from parley.tracing import settings


@asynccontextmanager
async def open_tracer(config: Config) -> AsyncIterator[Tracer | None]:
    """Yields the tracer, None without an endpoint, and exports its last spans at the end. Raises ConfigError."""
    found = settings.read(os.environ)
    if found is None:
        yield None
        return
    from parley.tracing.attributes import backends
    from parley.tracing.tracer import OtelTracer

    tracer = OtelTracer(found, backends(config))
    try:
        yield tracer
    finally:
        await tracer.queue.close()


def with_spans(store: Store, config: Config, tracer: Tracer | None) -> Store:
    """Returns the store, whose operations have spans if there is a tracer."""
    if tracer is None:
        return store
    from parley.tracing.store import traced

    return traced(store, "sqlite" if isinstance(config.store, SqliteConfig) else "postgresql")
