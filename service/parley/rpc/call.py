"""The state of the running call, from its first byte to its log line."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from parley.core.call import CallOutcome
from parley.core.errors import CallCancelled, ParleyError, ShuttingDown
from parley.core.ports import Caller, CallFacts, CallTrace, Credentials, Origin, RequestShape
from parley.rpc.metadata import receipts

DIALECT = "parley-dialect"
"""Set by the edge to the dialect of a call of REST."""
ERROR_FORM = "parley-error-form"
"""The format of an error within a stream, set by the edge; see sse.py."""
_LASTING = (DIALECT, ERROR_FORM, receipts.FORM)


@dataclass(slots=True, eq=False)
class Call:
    """One RPC. The call handler and servicers fill it in; the log line is made from it.

    Attributes:
        method: The RPC's name, without package and service.
        request_id: The id of this call.
        correlation_id: The caller's id for a chain of calls; the request id if there is none.
        metadata: The request's metadata; of a repeated name the last value.
        task: The task that runs the handler, until the call ends.
        caller: The authenticated caller; None before authentication, and for calls of administrators.
        origin: What a change by an administrator comes from; None for other calls.
        status: The name of the gRPC status that the call ends with.
        failure: The error that is returned to the caller; None while there is none.
        cancel_cause: Why this worker has cancelled the call; None if a cancellation comes from the caller.
        credentials: What the caller presented; None before authentication.
        writing_since: When the pending write to the caller began, in seconds of the event loop's clock; None between
            writes.
        headers_sent: Whether the initial metadata was sent.
        outcome: What the core returns besides the answer: rate limits, replay, receipt.
        log_fields: Further fields of the log line.
        is_logged: Whether the call has a log line of its own.
        started: When the call began, in seconds of `time.perf_counter`.
        trace: The trace of the call; None without tracing.
        shape: What a request of the chat completions has, from its decoding to its validation; None otherwise.
    """

    method: str
    request_id: str
    correlation_id: str
    metadata: dict[str, str]
    task: asyncio.Task[Any]
    caller: Caller | None = None
    origin: Origin | None = None
    status: str = "OK"
    failure: ParleyError | None = None
    cancel_cause: ParleyError | None = None
    credentials: Credentials | None = None
    writing_since: float | None = None
    headers_sent: bool = False
    outcome: CallOutcome = field(default_factory=CallOutcome)
    log_fields: dict[str, Any] = field(default_factory=dict)
    is_logged: bool = True
    started: float = 0.0
    trace: CallTrace | None = None
    shape: RequestShape | None = None

    @property
    def known_caller(self) -> Caller:
        """The caller of an authenticated call."""
        if self.caller is None:
            raise RuntimeError("the method is not authenticated")
        return self.caller

    def drop_metadata(self) -> None:
        """Drops what only the beginning of a call reads of the metadata, which a stream would keep for long."""
        self.metadata = _lasting(*map(self.metadata.get, _LASTING))

    def cancel(self, cause: ParleyError) -> None:
        """Cancels the call, which ends with the error `cause`."""
        if self.cancel_cause is None:
            self.cancel_cause = cause
            self.outcome.is_access_revoked = not isinstance(cause, ShuttingDown | CallCancelled)
            self.task.cancel()

    def end(self) -> None:
        """Ends the trace, and drops the task.

        The context of the task has the call: otherwise only the garbage collector would free the two.

        Drops the records of attempts and the state of the answer too: a background task may keep the context of the
        call that started it.
        """
        if self.trace is not None:
            self._end_trace(self.trace)
        del self.task
        self.outcome.attempts = ()
        self.outcome.running = None  # it refers to the outcome
        self.outcome.answer = None

    def _end_trace(self, trace: CallTrace) -> None:
        account = self.caller.account if self.caller is not None else ""
        outcome = self.outcome
        facts = CallFacts(
            self.method, self.status, self.failure, self.request_id, account, self.log_fields, outcome.attempts
        )
        facts.answer, facts.guards = outcome.answer, outcome.guards
        trace.end(facts)
        self.trace = None


@lru_cache(64)
def _lasting(*values: str | None) -> dict[str, str]:
    """Returns metadata with these values of `_LASTING`. Streams share it, so that it must not be changed."""
    return {name: value for name, value in zip(_LASTING, values, strict=True) if value is not None}


_current: ContextVar[Call] = ContextVar("call")


current: Callable[[], Call] = _current.get
"""Returns the call of this task."""

set_current: Callable[[Call], object] = _current.set
"""Sets the call of this task."""


def caller() -> Caller:
    """Returns the authenticated caller of this task's call."""
    return _current.get().known_caller


def origin() -> Origin:
    """Returns what a change of this task's call comes from."""
    known = _current.get().origin
    if known is None:
        raise RuntimeError("the method is not for administrators")
    return known
