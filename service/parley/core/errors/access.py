"""Refusals of a key: authentication, plan and scopes."""

from collections.abc import Sequence

from parley.core.errors.base import ParleyError
from parley.v1 import error_reason_pb2 as reasons


class Unauthenticated(ParleyError):
    """The call has no `authorization` metadata.

    Args:
        misplaced: The header that holds a key instead, if any.
    """

    reason = reasons.ERROR_REASON_MISSING_API_KEY
    fault = "missing"

    def __init__(self, misplaced: str | None = None) -> None:
        hint = f"; send it as `Authorization: Bearer <key>`, not in `{misplaced}`" if misplaced else ""
        super().__init__(f"Missing API key{hint}")


class InvalidApiKey(ParleyError):
    """The API key is malformed, unknown, expired or revoked.

    Args:
        fault: Why, for the log: `malformed`, `unknown`, `expired` or `revoked`. Callers do not see it.
    """

    reason = reasons.ERROR_REASON_INVALID_API_KEY

    def __init__(self, fault: str = "unknown") -> None:
        super().__init__("Invalid API key")
        self.fault = fault


class AccessRevoked(InvalidApiKey):
    """The API key of a running call has been revoked, or has expired."""

    def __init__(self) -> None:
        ParleyError.__init__(self, "The API key was revoked or expired while the call was running; use another key")


class PlanRequired(ParleyError):
    """The key's account is on the free plan."""

    reason = reasons.ERROR_REASON_PLAN_REQUIRED
    fault = "plan"

    def __init__(self) -> None:
        super().__init__("This API is only available on a paid plan. Visit your dashboard to upgrade.")


class AccountSuspended(ParleyError):
    """The key's account is suspended."""

    reason = reasons.ERROR_REASON_ACCOUNT_SUSPENDED
    fault = "suspended"

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


class InvalidToken(ParleyError):
    """The access token is malformed, expired, of another issuer or audience, or its signature is not valid."""

    reason = reasons.ERROR_REASON_INVALID_TOKEN
    fault = "token"


class InsufficientScope(ParleyError):
    """The access token lacks a required scope.

    Args:
        scopes: The scopes of the issuer that a token needs.
        message: What is missing.
    """

    reason = reasons.ERROR_REASON_INSUFFICIENT_SCOPE
    fault = "scope"

    def __init__(self, scopes: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.scopes = tuple(scopes)


class IssuerUnavailable(ParleyError):
    """The keys of the token's issuer cannot be read."""

    reason = reasons.ERROR_REASON_ISSUER_UNAVAILABLE

    def __init__(self, retry_after: int, cause: str) -> None:
        text = "The keys of the access token's issuer cannot be read; try again later"
        super().__init__(text, retry_after=retry_after, cause=cause)
