"""Decisions and failures of guards."""

from parley.core.errors.base import ParleyError
from parley.v1 import error_reason_pb2 as reasons


class GuardRefused(ParleyError):
    """A guard refuses the request.

    Args:
        guard: The name of the guard.
        guard_reason: The guard's own reason.
        message: The guard's message for the caller, which may quote the request; empty for Parley's own.
        param: The part of the request that no guard can read; None if the guard has read the request.
    """

    reason = reasons.ERROR_REASON_CONTENT_POLICY
    code = "content_filter"  # as in Azure OpenAI's errors, which clients recognize

    def __init__(self, guard: str, guard_reason: str, message: str = "", *, param: str | None = None) -> None:
        super().__init__(message or f'The guard "{guard}" of this service refuses the request', param=param)
        self.is_quoted = bool(message)
        self.guard = guard
        self.guard_reason = guard_reason


class GuardUnavailable(ParleyError):
    """A guard failed, and the configuration lets nothing pass without it.

    Args:
        guard: The name of the guard.
        guard_reason: The kind of failure, as receipts name it.
        cause: What only the operator may see.
    """

    reason = reasons.ERROR_REASON_GUARD_UNAVAILABLE

    def __init__(self, guard: str, guard_reason: str, cause: str | None = None) -> None:
        message = f'The guard "{guard}" of this service is not available; try again later'
        super().__init__(message, cause=f"guard {guard}: {cause or guard_reason}")
        self.guard = guard
        self.guard_reason = guard_reason
