"""The callers of client certificates: implements `parley.core.ports.Authenticator`."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from parley.auth.callers import Callers
from parley.core.administration import account_audit
from parley.core.ports import Account, AccountStore, Authenticator, Caller, Credentials, Origin

_CACHE_SECONDS = 0.5  # less than the second within which a change of the account takes effect
_MAX_CACHED = 10_000  # names
_ORIGIN = Origin("parley", "client certificate")


@dataclass(frozen=True, slots=True)
class _CachedCaller:
    """A caller, as read from the store at the Unix time `read`."""

    caller: Caller
    read: float


class ClientCertificates:
    """Authenticates calls without an `authorization` header by the name in the client's certificate.

    The edge has verified the certificate, and it alone sets the name. The first call of an account creates it.

    Args:
        others: Authenticates calls with an `authorization` header, and rejects those with neither.
        store: Holds the accounts.
        callers: Applies plans and limits.
        clock: Returns Unix seconds.
    """

    def __init__(
        self,
        others: Authenticator,
        store: AccountStore,
        callers: Callers,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._others = others
        self._store = store
        self._callers = callers
        self._clock = clock
        self._known: dict[str, _CachedCaller] = {}

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Returns the caller of a header or, without one, of the client's certificate.

        Raises:
            PlanRequired: The account's plan has no access to the API.
            AccountSuspended: The account is suspended.
            StoreUnavailable: The store cannot be reached.
            ParleyError: As the other authenticators.
        """
        if credentials.authorization or not credentials.certificate_name:
            return await self._others.authenticate(credentials)
        name, now = credentials.certificate_name, self._clock()
        known = self._known.get(name)
        # The lower bound: a clock that is set back must not keep a suspended account.
        if known is None or not 0 <= now - known.read < _CACHE_SECONDS:
            self._known.pop(name, None)
            known = _CachedCaller(await self._caller(name), now)
            if len(self._known) >= _MAX_CACHED:
                del self._known[next(iter(self._known))]
            self._known[name] = known
        return known.caller

    async def _caller(self, name: str) -> Caller:
        """Reads the account, or creates it."""
        account = await self._store.find_account(name)
        if account is None:
            audit = account_audit(_ORIGIN, "CreateAccount", int(self._clock()))
            account, _ = await self._store.add_account(Account(name, self._callers.first_plan), audit)
        return self._callers.caller(account, f"certificate:{name}")
