"""Finished spans, and the queue from which a thread exports them."""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from parley.tracing.settings import TracingSettings

_SCOPE = InstrumentationScope("parley")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SHUTDOWN_SECONDS = 2.0  # for the last spans; an endpoint that does not answer in this time loses them

_log = structlog.get_logger()


@dataclass(slots=True)
class FinishedSpan:
    """A span that has ended. Times are Unix times in nanoseconds.

    Attributes:
        name: The name.
        trace_id: The id of the trace.
        span_id: The id of the span.
        parent_id: The id of the parent's span; 0 for none.
        is_remote: Whether the parent is in another process.
        kind: The kind.
        start: The time of the start.
        end: The time of the end.
        attributes: The attributes.
        error: The reason of the failure; empty without one.
        events: The events: name and time.
    """

    name: str
    trace_id: int
    span_id: int
    parent_id: int
    kind: SpanKind
    start: int
    end: int
    attributes: Mapping[str, Any]
    is_remote: bool = False
    error: str = ""
    events: Sequence[tuple[str, int]] = ()


class SpanQueue:
    """Exports spans in a thread of its own. A full queue drops the oldest spans; a call never waits.

    Args:
        settings: The endpoint.
    """

    def __init__(self, settings: TracingSettings) -> None:
        _forward_log()
        self._resource = Resource.create({"service.name": settings.service_name})
        self._processor: SpanProcessor = BatchSpanProcessor(_exporter(settings))

    def add(self, span: FinishedSpan) -> None:
        """Adds a span."""
        context = SpanContext(span.trace_id, span.span_id, is_remote=False, trace_flags=_SAMPLED)
        parent = None
        if span.parent_id:
            parent = SpanContext(span.trace_id, span.parent_id, is_remote=span.is_remote, trace_flags=_SAMPLED)
        self._processor.on_end(
            ReadableSpan(
                span.name,
                context,
                parent,
                self._resource,
                {**span.attributes, "error.type": span.error} if span.error else span.attributes,
                [Event(name, timestamp=at) for name, at in span.events],
                kind=span.kind,
                status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
                start_time=span.start,
                end_time=span.end,
                instrumentation_scope=_SCOPE,
            )
        )

    async def close(self) -> None:
        """Exports the rest, for at most two seconds."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._processor.shutdown()
            loop.call_soon_threadsafe(done.set)

        # The thread of an endpoint that does not answer ends with the process.
        threading.Thread(target=shut_down, name="traces-shutdown", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), _SHUTDOWN_SECONDS)
        except TimeoutError:
            _log.warning("traces not exported", error=f"no answer of the endpoint within {_SHUTDOWN_SECONDS:g} s")


def _exporter(settings: TracingSettings) -> SpanExporter:
    """Creates the exporter. It reads the rest of its variables itself: the timeout, the compression."""
    if settings.protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter(settings.url, headers=dict(settings.headers), session=_session())
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

    return GrpcExporter(settings.url, insecure=not settings.is_secure, headers=tuple(settings.headers.items()))


def _session() -> Any:
    """Returns a session of requests that uses the configured authorities also where REQUESTS_CA_BUNDLE is set."""
    import requests

    class Session(requests.Session):
        def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
            chosen = self.verify if verify is None else verify
            return super().merge_environment_settings(url, proxies, stream, chosen, cert)

    return Session()


class _Forward(logging.Handler):
    """Writes what OpenTelemetry logs as lines of this process's log. OpenTelemetry itself omits repetitions."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line."""
        _log.warning("traces", error=record.getMessage())


def _forward_log() -> None:
    log = logging.getLogger("opentelemetry")
    if not log.handlers:
        log.addHandler(_Forward(logging.WARNING))
    log.propagate = False
