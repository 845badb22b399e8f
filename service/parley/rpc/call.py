"""The state of the running call, from its first byte to its log line."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from parley.core.chat import CallOutcome
from parley.core.errors import ParleyError
from parley.core.ports import Caller


@dataclass(slots=True, eq=False)
class Call:
    """One RPC. Interceptors and servicers fill it in; the log line is made from it.

    Attributes:
        method: The RPC's name, without package and service.
        request_id: The id of this call.
        correlation_id: The caller's id for a chain of calls; the request id if there is none.
        metadata: The request's metadata; of a repeated name the last value.
        task: The task that runs the handler.
        caller: The authenticated caller; None before authentication.
        status: The name of the gRPC status that the call ends with.
        failure: The error that is returned to the caller; None while there is none.
        stopping: Whether a cancellation comes from this worker and not from the caller.
        writing_since: When the pending write to the caller began, in seconds of the event loop's clock; None between
            writes.
        headers_sent: Whether the initial metadata was sent.
        outcome: What the core returns besides the answer: rate limits, replay, receipt.
        log_fields: Further fields of the log line.
    """

    method: str
    request_id: str
    correlation_id: str
    metadata: dict[str, str]
    task: asyncio.Task[Any]
    caller: Caller | None = None
    status: str = "OK"
    failure: ParleyError | None = None
    stopping: bool = False
    writing_since: float | None = None
    headers_sent: bool = False
    outcome: CallOutcome = field(default_factory=CallOutcome)
    log_fields: dict[str, Any] = field(default_factory=dict)


_current: ContextVar[Call] = ContextVar("call")


def current() -> Call:
    """Returns the call of this task."""
    return _current.get()


def set_current(call: Call) -> None:
    """Sets the call of this task."""
    _current.set(call)


def caller() -> Caller:
    """Returns the authenticated caller of this task's call."""
    known = _current.get().caller
    if known is None:
        raise RuntimeError("the method is not authenticated")
    return known
