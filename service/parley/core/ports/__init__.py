"""The interfaces that the core requires: backends, a store, an authenticator, documents."""

from typing import Protocol

from parley.core.ports.alerts import Alert, AlertReceiver, AlertStore, ReceiverGoneError
from parley.core.ports.audit import Audit, AuditEvent, AuditFilter, AuditStore, Origin
from parley.core.ports.backends import HOPS, MAX_HOPS, Backend, RequestShape, UpstreamCall
from parley.core.ports.cache import CacheSize, CacheStore, KeptAnswer
from parley.core.ports.claims import Claim, ClaimStore
from parley.core.ports.documents import Document, Documents, DocumentUnavailable
from parley.core.ports.guards import Guard, GuardError
from parley.core.ports.keys import (
    AccessChecker,
    Account,
    AccountStore,
    ApiKey,
    Authenticator,
    Caller,
    Credentials,
    KeyReader,
    KeyStore,
    NewKeyAudit,
    Scope,
)
from parley.core.ports.limits import Charge, LimitStore, Reservation, RunningCall, Settlement
from parley.core.ports.sessions import Reaped, SessionFilter, SessionStore
from parley.core.ports.tracing import AttemptTrace, CallFacts, CallTrace, Tracer
from parley.core.ports.turns import UNLIMITED_STORAGE, StorageLimits, Turn, TurnBegin, TurnEnd, Window
from parley.core.ports.usage import UsageCounts, UsageKey, UsageQuery, UsageRow, UsageStore

__all__ = [
    "HOPS",
    "MAX_HOPS",
    "UNLIMITED_STORAGE",
    "AccessChecker",
    "Account",
    "AccountStore",
    "Alert",
    "AlertReceiver",
    "AlertStore",
    "ApiKey",
    "AttemptTrace",
    "Audit",
    "AuditEvent",
    "AuditFilter",
    "AuditStore",
    "Authenticator",
    "Backend",
    "CacheSize",
    "CacheStore",
    "CallFacts",
    "CallTrace",
    "Caller",
    "Charge",
    "Claim",
    "ClaimStore",
    "Credentials",
    "Document",
    "DocumentUnavailable",
    "Documents",
    "Guard",
    "GuardError",
    "KeptAnswer",
    "KeyReader",
    "KeyStore",
    "LimitStore",
    "NewKeyAudit",
    "Origin",
    "Reaped",
    "ReceiverGoneError",
    "RequestShape",
    "Reservation",
    "RunningCall",
    "Scope",
    "SessionFilter",
    "SessionStore",
    "Settlement",
    "StorageLimits",
    "Store",
    "Tracer",
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


class Store(SessionStore, ClaimStore, KeyStore, AuditStore, LimitStore, UsageStore, AlertStore, CacheStore, Protocol):
    """One database that implements all store interfaces."""

    async def check(self) -> None:
        """Checks that the database answers. Raises StoreUnavailable."""
        ...

    async def wait_available(self) -> None:
        """Waits for a bounded time while the database is unavailable, for example during a failover.

        A caller that is cancelled meanwhile has written nothing.

        Raises:
            StoreUnavailable: The database is still unavailable, or calls do not wait for it.
        """
        ...

    async def identity(self) -> str:
        """Returns what tells the database from others; its backups and standbys have the same identity."""
        ...

    async def close(self) -> None:
        """Completes pending writes, then closes the connections."""
        ...
