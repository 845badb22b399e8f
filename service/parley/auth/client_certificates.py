"""The callers of client certificates: implements `parley.core.ports.Authenticator`."""

import time
from collections.abc import Callable

from parley.auth.callers import Callers
from parley.auth.recent import RecentCache, find_or_add
from parley.core.ports import Account, AccountStore, Authenticator, Caller, Credentials, Origin

_ORIGIN = Origin("parley", "client certificate")


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
        self._known = RecentCache[str, Caller]()

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
        caller = self._known.get(name, now)
        if caller is None:
            account = await find_or_add(self._store, Account(name, self._callers.first_plan), _ORIGIN, now)
            caller = self._callers.caller(account, f"certificate:{name}")
            self._known.put(name, caller, now)
        return caller
