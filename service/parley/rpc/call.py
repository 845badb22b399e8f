"""What is known of the call that is being answered, from its first byte to its log line."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from parley.core.errors import ParleyError
from parley.core.ports import Caller
from parley.core.usage.limits import RateLimitStatus
from parley.v1.receipt_pb2 import Receipt


@dataclass(slots=True, eq=False)
class Call:
    """One call of `method`, the RPC's name. Interceptors and servicers fill it in; the log line is made from it.

    `metadata` has the request's metadata, the last of each name. `log_fields` are the log line's further fields.
    `outcome` is the name of the gRPC status, `failure` what the caller was told. `stopping` says that this worker, and
    not the caller, cancels the call. `rate_limits` tell how the caller stands with its limits, once it was let in.
    `replayed` says that the answer was given before, to the same `Idempotency-Key`. `receipt` tells what was asked of
    whom, and `causes` why each of its attempts failed, in words for the log.
    """

    method: str
    request_id: str
    correlation_id: str
    metadata: dict[str, str]
    task: asyncio.Task[Any]
    caller: Caller | None = None
    outcome: str = "OK"
    failure: ParleyError | None = None
    stopping: bool = False
    rate_limits: Sequence[RateLimitStatus] | None = None
    writing_since: float | None = None
    replayed: bool = False
    receipt: Receipt | None = None
    causes: Sequence[str | None] = ()
    log_fields: dict[str, Any] = field(default_factory=dict)


_current: ContextVar[Call] = ContextVar("call")


def current() -> Call:
    """Returns the call that this task answers."""
    return _current.get()


def set_current(call: Call) -> None:
    """Makes this the call that the task answers."""
    _current.set(call)


def caller() -> Caller:
    """Returns who makes the call that this task answers. Authentication has seen to it that there is one."""
    known = _current.get().caller
    if known is None:
        raise RuntimeError("a method was reached without authentication")
    return known


def record_rate_limits(statuses: Sequence[RateLimitStatus]) -> None:
    """Keeps how the caller of this task's call stands, for the answer."""
    _current.get().rate_limits = statuses


def record_replay() -> None:
    """Keeps that this task's call has been answered before."""
    call = _current.get()
    call.replayed = call.log_fields["replayed"] = True


def record_receipt(receipt: Receipt, causes: Sequence[str | None]) -> None:
    """Keeps what was asked of whom for this task's call, and why each attempt failed."""
    call = _current.get()
    call.receipt, call.causes = receipt, causes
