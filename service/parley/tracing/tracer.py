"""The tracer of a worker: one trace for each call, whose spans are made from the call's records when they end.

Until then a call only has ids: its spans cost nothing while it runs.
"""

import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from opentelemetry.trace import SpanKind

from parley.core.ports import AttemptTrace, CallFacts
from parley.tracing import attributes, context
from parley.tracing.attributes import BackendFacts
from parley.tracing.settings import TracingSettings
from parley.tracing.spans import FinishedSpan, SpanQueue

_RATIO_BITS = 64
_RATIO_MASK: int = 2**_RATIO_BITS - 1
_NO_ATTEMPT = AttemptTrace(0)
_UNKNOWN = BackendFacts("parley")

current: ContextVar["Trace | None"] = ContextVar("trace", default=None)
"""The trace of the call of this task."""


class OtelTracer:
    """Starts traces and exports their spans.

    Args:
        settings: Which traces are sampled, and where they are sent.
        backends: What spans say of the backends, by name.
        queue: Exports spans.
    """

    def __init__(
        self, settings: TracingSettings, backends: Mapping[str, BackendFacts], queue: SpanQueue | None = None
    ) -> None:
        self.settings = settings
        self.backends = backends
        self.queue = queue or SpanQueue(settings)
        self._bound: int = round(settings.ratio * 2**_RATIO_BITS)

    def start(self, service: str, metadata: Mapping[str, str]) -> "Trace":
        """Starts the span of a call; see the port."""
        trace = Trace(self, service, context.parent(metadata))
        current.set(trace)
        return trace

    def samples(self, trace_id: int, parent: context.Parent | None) -> bool:
        """Returns whether a trace is sampled."""
        if parent is not None and self.settings.parent_based:
            return parent.is_sampled
        return trace_id & _RATIO_MASK < self._bound


class Trace:
    """The trace of one call; see the port."""

    __slots__ = ("_attempts", "_parent", "_service", "_started", "_tracer", "id", "is_sampled", "span_id")

    def __init__(self, tracer: OtelTracer, service: str, parent: context.Parent | None) -> None:
        self._tracer = tracer
        self._service = service
        self._parent = parent
        self.id = context.new_trace_id() if parent is None else parent.trace_id
        self.span_id = context.new_span_id()
        self.is_sampled = tracer.samples(self.id, parent)
        self._started = time.time_ns()

    @property
    def trace_id(self) -> str:
        """The id of the trace, in hexadecimal."""
        return f"{self.id:032x}"

    @property
    def captures_content(self) -> bool:
        """Whether the spans contain the messages of the call."""
        return self.is_sampled and self._tracer.settings.captures_content

    def start_attempt(self, backend: str) -> AttemptTrace:
        """Returns the trace context of a new attempt; see the port."""
        policy = self._tracer.backends.get(backend, _UNKNOWN).context
        if policy == "off" and not self.is_sampled:
            return _NO_ATTEMPT
        span_id = context.new_span_id()
        if policy == "off":
            return AttemptTrace(span_id)
        header = "traceparent", context.traceparent(self.id, span_id, is_sampled=self.is_sampled)
        if policy == "full" and self._parent is not None and self._parent.state:
            return AttemptTrace(span_id, (header, ("tracestate", self._parent.state)))
        return AttemptTrace(span_id, (header,))

    def add(self, name: str, kind: SpanKind, start: int, fields: Mapping[str, Any], error: str = "") -> None:
        """Adds a span of this call that ends now."""
        span_id, now = context.new_span_id(), time.time_ns()
        self._tracer.queue.add(
            FinishedSpan(name, self.id, span_id, self.span_id, kind, start, now, fields, error=error)
        )

    def end(self, facts: CallFacts) -> None:
        """Ends the spans of the call and of its attempts."""
        if not self.is_sampled:
            return
        now = time.time_ns()
        self._add_attempts(facts.attempts, now)
        self._add_guards(facts.guards, now)
        parent_id = self._parent.span_id if self._parent is not None else 0
        fields = attributes.of_call(self._service, facts)
        if self.captures_content:
            fields |= attributes.of_content(facts)
        name = f"{self._service}/{facts.method}"
        error = attributes.reason(facts.failure) or (facts.status if facts.status != "OK" else "")
        span = FinishedSpan(name, self.id, self.span_id, parent_id, SpanKind.SERVER, self._started, now, fields)
        span.error, span.is_remote = error, True
        self._tracer.queue.add(span)

    def _add_attempts(self, attempts: Sequence[Any], now: int) -> None:
        # The clock of attempts is monotonic.
        offset = now - time.monotonic_ns()
        for number, attempt in enumerate(attempts, 1):
            backend = self._tracer.backends.get(attempt.backend, _UNKNOWN)
            start = int(attempt.started * 1e9) + offset
            end = now if attempt.ended is None else int(attempt.ended * 1e9) + offset
            span = FinishedSpan(
                f"chat {attempt.target_model or attempt.model_id}",
                self.id,
                attempt.call.trace.span_id if attempt.call.trace else context.new_span_id(),
                self.span_id,
                SpanKind.CLIENT,
                start,
                end,
                attributes.of_attempt(attempt, number, backend),
                error=attributes.error_of(attempt),
            )
            if attempt.first_token is not None:
                span.events = (("gen_ai.first_token", int(attempt.first_token * 1e9) + offset),)
            self._tracer.queue.add(span)

    def _add_guards(self, records: Sequence[Any], now: int) -> None:
        """Adds a span for each guard and phase: from its first check to the end of its last one."""
        offset = now - time.monotonic_ns()
        for record in records:
            start, end = int(record.started * 1e9) + offset, int(record.ended * 1e9) + offset
            span = FinishedSpan(
                f"guard {record.guard}",
                self.id,
                context.new_span_id(),
                self.span_id,
                SpanKind.CLIENT,
                start,
                end,
                attributes.of_guard(record),
                error=record.reason if record.cause else "",
            )
            self._tracer.queue.add(span)
