"""Events of the audit log: what a change of a key or an account has changed."""

from dataclasses import replace
from typing import Any

from parley.core.messages.ids import uuid7
from parley.core.ports import Account, ApiKey, Audit, AuditEvent, NewKeyAudit, Origin


def key_audit(origin: Origin, method: str, now: int) -> Audit[ApiKey]:
    """Returns the function that describes a change of a key.

    Args:
        origin: Where the change comes from.
        method: The RPC that makes it.
        now: Unix seconds.
    """

    def event(before: ApiKey | None, after: ApiKey) -> AuditEvent:
        changes = _changes(_key_fields(before) if before else {}, _key_fields(after))
        return AuditEvent(uuid7(), now, origin.actor, origin.source, method, f"key:{after.id}", changes)

    return event


def new_key_audit(origin: Origin, now: int) -> NewKeyAudit:
    """Returns the function that describes a new key, and the plan of its account if that is new, too."""
    describe = key_audit(origin, "CreateKey", now)

    def event(key: ApiKey, new_account: bool) -> AuditEvent:
        made = describe(None, key)
        return replace(made, changes={**made.changes, "plan": (None, key.account.plan)}) if new_account else made

    return event


def account_audit(origin: Origin, method: str, now: int) -> Audit[Account]:
    """Returns the function that describes a change of an account. The arguments are those of `key_audit`."""

    def event(before: Account | None, after: Account) -> AuditEvent:
        changes = _changes(_account_fields(before) if before else {}, _account_fields(after))
        return AuditEvent(uuid7(), now, origin.actor, origin.source, method, f"account:{after.name}", changes)

    return event


def _key_fields(key: ApiKey) -> dict[str, Any]:
    """Returns the fields that a change may concern, without digests."""
    return {
        "name": key.name,
        "account": key.account.name,
        "models": list(key.models),
        "scopes": list(key.scopes),
        "limits": key.limits.set_values(),
        "expires": key.expires,
        "revoked": key.revoked,
        "previous_expires": key.previous_expires,
    }


def _account_fields(account: Account) -> dict[str, Any]:
    limits = account.limits.set_values()
    return {"plan": account.plan, "limits": limits, "suspended": account.suspended}


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns the fields that differ. An empty list or object counts as not set."""
    pairs = {name: (before.get(name) or None, value or None) for name, value in after.items()}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
