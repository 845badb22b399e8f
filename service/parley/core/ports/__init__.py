"""What the core needs from outside: backends that answer, and a store that remembers."""

from typing import Protocol

from parley.core.ports.backends import Backend, UpstreamCall
from parley.core.ports.keys import ApiKey, Authenticator, Caller, KeyStore
from parley.core.ports.limits import Charge, LimitStore, Reservation
from parley.core.ports.sessions import (
    Claim,
    ClaimStore,
    Reaped,
    SessionFilter,
    SessionStore,
    Turn,
    TurnBegin,
    TurnEnd,
    Window,
)

__all__ = [
    "ApiKey",
    "Authenticator",
    "Backend",
    "Caller",
    "Charge",
    "Claim",
    "ClaimStore",
    "KeyStore",
    "LimitStore",
    "Reaped",
    "Reservation",
    "SessionFilter",
    "SessionStore",
    "Store",
    "Turn",
    "TurnBegin",
    "TurnEnd",
    "UpstreamCall",
    "Window",
]


class Store(SessionStore, ClaimStore, KeyStore, LimitStore, Protocol):
    """One database with all of it."""

    async def check(self) -> None:
        """Raises StoreUnavailable unless the database answers."""
        ...

    async def close(self) -> None:
        """Finishes what is being written, then closes."""
        ...
