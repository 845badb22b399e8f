"""Authentication of calls, with a limit of failures for each client address."""

import asyncio
from collections.abc import Mapping

from parley.core.errors import (
    AccountSuspended,
    InsufficientScope,
    InvalidApiKey,
    InvalidToken,
    ParleyError,
    PlanRequired,
    RateLimited,
    Unauthenticated,
)
from parley.core.ports import Authenticator, Caller, Credentials
from parley.rpc.address_failures import AddressFailures
from parley.rpc.call import Call
from parley.rpc.metadata.challenges import Challenges

CLIENT_ADDRESS = "parley-client-address"
"""The metadata with the client's address, which only the edge sets."""
_KEY_HEADERS = ("x-api-key", "api-key", "x-goog-api-key")  # headers in which clients of other vendors send the key
_FAILURES = (Unauthenticated, InvalidApiKey, InvalidToken, InsufficientScope, PlanRequired, AccountSuspended)
_MAX_WAITING = 64  # calls from addresses over their limit that wait for their authentication


class Authentication:
    """Authenticates calls. Failures count for the client's address.

    The credentials from an address over its limit are authenticated one after another, and at most 64 wait: a flood of
    invalid credentials needs one connection to the store, and valid credentials from the same address still succeed.

    Args:
        authenticator: Authenticates the credentials.
        challenges: Writes the challenges of failures.
    """

    def __init__(self, authenticator: Authenticator, challenges: Challenges) -> None:
        self.challenges = challenges
        self._authenticator = authenticator
        self._failures = AddressFailures()
        self._queue = asyncio.Lock()
        self._waiting = 0

    async def authenticate(self, call: Call) -> None:
        """Sets the caller of a call.

        Raises:
            Unauthenticated: There are no credentials.
            InvalidApiKey: The key is malformed, unknown, revoked or expired.
            InvalidToken: The access token is not valid.
            InsufficientScope: The access token lacks a scope.
            PlanRequired: The account's plan excludes the API.
            AccountSuspended: The account is suspended.
            RateLimited: The credentials are not valid, and too many others from this address were not.
            StoreUnavailable: The store cannot be reached.
        """
        address = call.metadata.get(CLIENT_ADDRESS, "")
        names = call.metadata.get("parley-client-name", "")  # of a client's certificate, of which the first one counts
        name = names.partition(",")[0] if names else ""
        call.credentials = credentials = Credentials(call.metadata.get("authorization"), address, name)
        try:
            if self._failures.is_limited(address):
                call.caller = await self._authenticate_in_turn(credentials)
            else:
                call.caller = await self._authenticator.authenticate(credentials)
        except _FAILURES as error:
            raise self._record(call, address, error) from error

    async def _authenticate_in_turn(self, credentials: Credentials) -> Caller:
        if self._waiting >= _MAX_WAITING:
            raise _too_many(1)
        self._waiting += 1
        try:
            async with self._queue:
                return await self._authenticator.authenticate(credentials)
        finally:
            self._waiting -= 1

    def _record(self, call: Call, address: str, error: ParleyError) -> ParleyError:
        """Counts a failure and describes it in the log line. Returns the error for the caller."""
        failure = self._failures.record(address)
        call.log_fields |= {
            "credential": getattr(error, "fault", "invalid"),
            "client": address,
            "failures": failure.count,
        }
        call.is_logged = failure.is_logged
        if failure.retry_after is not None:
            return _too_many(failure.retry_after)
        return Unauthenticated(_misplaced(call.metadata)) if isinstance(error, Unauthenticated) else error


def _too_many(seconds: int) -> RateLimited:
    text = f"Too many calls without a valid credential from this address; try again in {seconds} s"
    return RateLimited(text, seconds, limit="failed_credentials")


def _misplaced(metadata: Mapping[str, str]) -> str | None:
    """Returns the header that has a key instead of `authorization`, if there is one."""
    return next((name for name in _KEY_HEADERS if metadata.get(name)), None)
