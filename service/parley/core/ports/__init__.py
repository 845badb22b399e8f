"""The interfaces that the core requires: backends, a store and an authenticator."""

from typing import Protocol

from parley.core.ports.backends import Backend, UpstreamCall
from parley.core.ports.claims import Claim, ClaimStore
from parley.core.ports.keys import Account, ApiKey, Authenticator, Caller, Credentials, KeyStore, Scope
from parley.core.ports.limits import Charge, LimitStore, Reservation
from parley.core.ports.sessions import (
    Reaped,
    SessionFilter,
    SessionStore,
    Turn,
    TurnBegin,
    TurnEnd,
    Window,
)
from parley.core.ports.usage import UsageCounts, UsageKey, UsageQuery, UsageRow, UsageStore

__all__ = [
    "Account",
    "ApiKey",
    "Authenticator",
    "Backend",
    "Caller",
    "Charge",
    "Claim",
    "ClaimStore",
    "Credentials",
    "KeyStore",
    "LimitStore",
    "Reaped",
    "Reservation",
    "Scope",
    "SessionFilter",
    "SessionStore",
    "Store",
    "Turn",
    "TurnBegin",
    "TurnEnd",
    "UpstreamCall",
    "UsageCounts",
    "UsageKey",
    "UsageQuery",
    "UsageRow",
    "UsageStore",
    "Window",
]


class Store(SessionStore, ClaimStore, KeyStore, LimitStore, UsageStore, Protocol):
    """One database that implements all store interfaces."""

    async def check(self) -> None:
        """Checks that the database answers. Raises StoreUnavailable."""
        ...

    async def close(self) -> None:
        """Completes pending writes, then closes the connections."""
        ...
