"""The interface of tracing. Without tracing there are no such objects: a call that is not traced has None."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from parley.core.errors import ParleyError
    from parley.v1.chat_completions_pb2 import ChatCompletion


class AttemptTrace(NamedTuple):
    """The trace context of one attempt.

    Attributes:
        span_id: The id of the attempt's span.
        headers: The headers, or metadata, for the target: `traceparent` and `tracestate` (W3C Trace Context).
    """

    span_id: int
    headers: Sequence[tuple[str, str]] = ()


@dataclass(slots=True)
class CallFacts:
    """What is known of a call at its end.

    Attributes:
        method: The RPC's name, without package and service.
        status: The name of the gRPC status.
        failure: The error that ended the call; None without one.
        request_id: The id of the call.
        account: The caller's account; empty before authentication.
        fields: The fields of the log line.
        attempts: The records of the attempts, see `core.usage.attempts`.
        answer: The answer, if the trace captures content.
        guards: What the guards of the model have decided, see `core.guards.records`.
    """

    method: str
    status: str
    failure: "ParleyError | None"
    request_id: str
    account: str
    fields: Mapping[str, Any]
    attempts: Sequence[Any]
    answer: "ChatCompletion | None" = None
    guards: Sequence[Any] = ()


class CallTrace(Protocol):
    """The trace of one call."""

    @property
    def trace_id(self) -> str:
        """The id of the trace, in hexadecimal."""
        ...

    @property
    def captures_content(self) -> bool:
        """Whether the spans contain the messages of the call."""
        ...

    def start_attempt(self, backend: str) -> AttemptTrace:
        """Returns the trace context of a new attempt at a backend."""
        ...

    def end(self, facts: CallFacts) -> None:
        """Ends the spans of the call and of its attempts. Never blocks or raises."""
        ...


class Tracer(Protocol):
    """Starts traces."""

    def start(self, service: str, metadata: Mapping[str, str]) -> CallTrace:
        """Starts the span of a call, in this task.

        Args:
            service: The full name of the RPC's service.
            metadata: The request's metadata, which may have the trace context of the caller.
        """
        ...
