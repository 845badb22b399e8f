"""The callers of access tokens: implements `parley.core.ports.Authenticator`."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from parley.auth.callers import Callers
from parley.auth.recent import RecentCache, find_or_add
from parley.auth.tokens.claims import Grant, grant
from parley.auth.tokens.verifier import Verified, Verifier
from parley.config import merged
from parley.core.ports import Account, AccountStore, Caller, Origin

_ORIGIN = Origin("parley", "access token")


@dataclass(frozen=True, slots=True)
class _CachedToken:
    """A verified token, and its caller as read from the store."""

    verified: Verified
    expires: float
    caller: Caller


class AccessTokens:
    """Authenticates access tokens.

    A verified token is cached by its SHA-256 until it expires or its issuer withdraws the key. Its account is read
    again after half a second, so that a suspension or another plan takes effect in all workers within one second.

    Args:
        verifier: Verifies signatures.
        store: Holds the accounts. The first token of an account creates it.
        callers: Applies plans and limits.
        clock: Returns Unix seconds.
    """

    def __init__(
        self, verifier: Verifier, store: AccountStore, callers: Callers, clock: Callable[[], float] = time.time
    ) -> None:
        self._verifier = verifier
        self._store = store
        self._callers = callers
        self._clock = clock
        self._known = RecentCache[bytes, _CachedToken]()

    async def authenticate(self, token: str) -> Caller:
        """Returns the caller of an access token.

        Raises:
            InvalidToken: The token is not valid.
            InsufficientScope: The token lacks a required scope.
            PlanRequired: The account's plan has no access to the API.
            AccountSuspended: The account is suspended.
            IssuerUnavailable: The issuer's keys cannot be read.
            StoreUnavailable: The store cannot be reached.
        """
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        now = self._clock()
        known = self._known.get(digest, now)
        if known is not None and now < known.expires:
            return known.caller
        known = self._known.pop(digest)
        verified = known.verified if known is not None and known.verified.is_current() else None
        if verified is None:
            verified = await self._verifier.verify(token)
        granted = grant(verified.claims, verified.issuer, now)
        caller = await self._caller(granted, now)
        self._known.put(digest, _CachedToken(verified, granted.expires, caller), now)
        return caller

    async def _caller(self, granted: Grant, now: float) -> Caller:
        """Reads the account, or creates it, and applies its plan and limits. Limits that are stored win."""
        account = await find_or_add(self._store, self._new_account(granted), _ORIGIN, now)
        account = replace(account, plan=granted.plan or account.plan, limits=merged(granted.limits, account.limits))
        return self._callers.caller(account, granted.subject, granted.models, granted.scopes)

    def _new_account(self, granted: Grant) -> Account:
        return Account(granted.account, granted.plan or granted.default_plan or self._callers.first_plan)
