"""The callers of access tokens: implements `parley.core.ports.Authenticator`."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from parley.auth.callers import Callers
from parley.auth.tokens.claims import Grant, grant
from parley.auth.tokens.verifier import Verified, Verifier
from parley.config import merged
from parley.core.administration import account_audit
from parley.core.ports import Account, AccountStore, Caller, Origin

_CACHE_SECONDS = 0.5  # less than the second within which a change of the account takes effect
_MAX_CACHED = 10_000  # tokens
_ORIGIN = Origin("parley", "access token")


@dataclass(frozen=True, slots=True)
class _CachedToken:
    """A verified token, and its caller as read from the store at the Unix time `read`."""

    verified: Verified
    expires: float
    caller: Caller
    read: float


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
        self._known: dict[bytes, _CachedToken] = {}

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
        known = self._known.get(digest)
        # The lower bound: a clock that is set back must not keep a suspended account.
        if known is not None and 0 <= now - known.read < _CACHE_SECONDS and now < known.expires:
            return known.caller
        self._known.pop(digest, None)
        verified = known.verified if known is not None and known.verified.is_current() else None
        if verified is None:
            verified = await self._verifier.verify(token)
        granted = grant(verified.claims, verified.issuer, now)
        known = _CachedToken(verified, granted.expires, await self._caller(granted), now)
        self._keep(digest, known)
        return known.caller

    async def _caller(self, granted: Grant) -> Caller:
        """Reads the account, or creates it, and applies its plan and limits. Limits that are stored win."""
        account = await self._store.find_account(granted.account)
        if account is None:
            audit = account_audit(_ORIGIN, "CreateAccount", int(self._clock()))
            account, _ = await self._store.add_account(self._new_account(granted), audit)
        account = replace(account, plan=granted.plan or account.plan, limits=merged(granted.limits, account.limits))
        return self._callers.caller(account, granted.subject, granted.models, granted.scopes)

    def _new_account(self, granted: Grant) -> Account:
        return Account(granted.account, granted.plan or granted.default_plan or self._callers.first_plan)

    def _keep(self, digest: bytes, known: _CachedToken) -> None:
        if len(self._known) >= _MAX_CACHED:
            del self._known[next(iter(self._known))]
        self._known[digest] = known
