"""The audit log: the record of all changes of keys, accounts and the running service."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a change comes from.

    Attributes:
        actor: What makes it: `user:NAME` of the operating system, `admin-key:NAME`, or `parley` itself.
        source: `cli`, `socket`, `up`, or an IP address.
    """

    actor: str
    source: str


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """A change of a key, an account or the running service, without secrets.

    Attributes:
        id: A UUID of version 7.
        time: Unix seconds.
        actor: See `Origin`.
        source: See `Origin`.
        method: The RPC of `parley.admin.v1` that makes such a change.
        subject: `key:ID`, `account:NAME`, `target:NAME`, `call:ID`, or `service`.
        changes: The values before and after of each field that changed, as JSON values.
    """

    id: str
    time: int
    actor: str
    source: str
    method: str
    subject: str
    changes: Mapping[str, tuple[Any, Any]]


Audit: TypeAlias = Callable[[T | None, T], AuditEvent]
"""Returns the event of a change from the state before, None for what did not exist, and the state after."""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Selects the events to list; None selects all.

    Attributes:
        since: The earliest time, in Unix seconds, inclusive.
        subject: The subject.
    """

    since: int | None = None
    subject: str | None = None


class AuditStore(Protocol):
    """Reads and extends the audit log. Every method raises StoreUnavailable if the store cannot be reached."""

    async def list_audit_events(
        self, chosen: AuditFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[AuditEvent], str | None]:
        """Returns a page of events, the latest first, and the token of the next page.

        Raises:
            InvalidRequest: The token is invalid.
        """
        ...

    async def add_audit_event(self, event: AuditEvent) -> None:
        """Adds the event of a change that the store does not hold."""
        ...
