"""Exceeded limits of a key, an account or a session."""

from parley.core.errors.base import ParleyError
from parley.v1 import error_reason_pb2 as reasons


class LimitExceeded(ParleyError):
    """A limit of a key, an account or a session does not admit the call.

    Args:
        message: The limit, what remains of it, and what to do.
        retry_after: Seconds after which to retry, or None.
        subject: What is limited: `key:ID`, `account:NAME` or `session`; empty for the address of a client.
        limit: The name of the limit, for metrics.
        param: The request's field at fault, or None.
    """

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        *,
        subject: str = "",
        limit: str = "",
        param: str | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after, param=param)
        self.subject, self.limit = subject, limit


class RateLimited(LimitExceeded):
    """The key or the account has used up its requests or tokens of a minute."""

    reason = reasons.ERROR_REASON_RATE_LIMITED


class ConcurrencyLimited(LimitExceeded):
    """The key or the account has as many calls running as it may have."""

    reason = reasons.ERROR_REASON_CONCURRENCY_LIMITED


class QuotaExhausted(LimitExceeded):
    """The key or the account has used up its tokens or its money of a day or a month."""

    reason = reasons.ERROR_REASON_QUOTA_EXHAUSTED


class StorageLimitExceeded(LimitExceeded):
    """The session or its account cannot store more."""

    reason = reasons.ERROR_REASON_STORAGE_LIMIT_EXCEEDED
