"""Refusals of a key: authentication, plan and rate limits."""

from parley.core.errors.base import ParleyError
from parley.v1 import error_reason_pb2 as reasons


class Unauthenticated(ParleyError):
    """The call has no `authorization` metadata.

    Args:
        misplaced: The header that holds a key instead, if any.
    """

    reason = reasons.ERROR_REASON_MISSING_API_KEY

    def __init__(self, misplaced: str | None = None) -> None:
        hint = f"; send it as `Authorization: Bearer <key>`, not in `{misplaced}`" if misplaced else ""
        super().__init__(f"Missing API key{hint}")


class InvalidApiKey(ParleyError):
    """The API key is unknown, expired or revoked."""

    reason = reasons.ERROR_REASON_INVALID_API_KEY

    def __init__(self) -> None:
        super().__init__("Invalid API key")


class PlanRequired(ParleyError):
    """The key's account is on the free plan."""

    reason = reasons.ERROR_REASON_PLAN_REQUIRED

    def __init__(self) -> None:
        super().__init__("This API is only available on a paid plan. Visit your dashboard to upgrade.")


class AccountSuspended(ParleyError):
    """The key's account is suspended."""

    reason = reasons.ERROR_REASON_ACCOUNT_SUSPENDED

    def __init__(self) -> None:
        super().__init__("This account is suspended; contact the operator of this service")


class ScopeRequired(ParleyError):
    """The key's scopes do not include the one that the method requires.

    Args:
        scope: The required scope.
    """

    reason = reasons.ERROR_REASON_SCOPE_REQUIRED

    def __init__(self, scope: str) -> None:
        super().__init__(f"This key does not have the scope `{scope}`; use a key that has it")


class RateLimited(ParleyError):
    """The key or the account has used up its requests or tokens of a minute."""

    reason = reasons.ERROR_REASON_RATE_LIMITED

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, retry_after=retry_after)
