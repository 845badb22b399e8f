"""Tracing with OpenTelemetry: a client span for each call, and the trace context in its metadata.

Needs `parley-client[otel]`. `Client(…, observer=Tracing())` uses it.
"""

from collections.abc import Callable, Iterable

from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from parley_client.errors import ParleyError


class Tracing:
    """Observes calls. Names and attributes of spans are those of OpenTelemetry's conventions for RPC.

    Args:
        provider: Creates the tracer; None for the global provider.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("parley_client", tracer_provider=provider)

    def start(self, method: str) -> tuple[Iterable[tuple[str, str]], Callable[[ParleyError | None], None]]:
        """Starts the span of a call; the span includes its retries."""
        service, _, name = method.partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        span = self._tracer.start_span(method, kind=SpanKind.CLIENT, attributes=attributes)
        metadata: dict[str, str] = {}
        propagate.inject(metadata, trace.set_span_in_context(span))

        def end(error: ParleyError | None) -> None:
            span.set_attribute("rpc.grpc.status_code", 0 if error is None else error.code.value[0])
            if error is not None:
                span.set_attribute("error.type", error.reason or error.code.name)
                span.set_status(Status(StatusCode.ERROR))
            span.end()

        # Names are in lower case in gRPC; a propagator may have another one, for example X-Amzn-Trace-Id.
        return [(name.lower(), value) for name, value in metadata.items()], end
