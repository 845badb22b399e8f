"""Conversion between the messages of `parley.admin.v1` and the core's keys, accounts and audit events."""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value

from parley import config
from parley.admin.v1 import accounts_pb2, audit_pb2, keys_pb2
from parley.core import ports
from parley.core.administration import LimitChange, key_state
from parley.core.errors import InvalidRequest

_LIMITS = "limits"
_STATES = {
    "active": keys_pb2.KEY_STATE_ACTIVE,
    "expired": keys_pb2.KEY_STATE_EXPIRED,
    "revoked": keys_pb2.KEY_STATE_REVOKED,
}


def key(found: ports.ApiKey, now: float) -> keys_pb2.Key:
    """Returns the message of a key, whose state is that at `now` (Unix seconds)."""
    return keys_pb2.Key(
        id=found.id,
        name=found.name,
        account=found.account.name,
        models=found.models,
        scopes=found.scopes,
        limits=_limits(found.limits),
        state=_STATES[key_state(found, now)],
        created=found.created,
        expires=found.expires,
        revoked=found.revoked,
        previous_expires=found.previous_expires,
    )


def account(found: ports.Account) -> accounts_pb2.Account:
    """Returns the message of an account."""
    return accounts_pb2.Account(
        name=found.name, plan=found.plan, limits=_limits(found.limits), suspended=found.suspended
    )


def plan(name: str, found: config.Plan, *, is_default: bool) -> accounts_pb2.Plan:
    """Returns the message of a plan."""
    return accounts_pb2.Plan(name=name, api=found.api, limits=_limits(found.limits), default=is_default)


def audit_event(found: ports.AuditEvent) -> audit_pb2.AuditEvent:
    """Returns the message of an event."""
    return audit_pb2.AuditEvent(
        id=found.id,
        time=found.time,
        actor=found.actor,
        source=found.source,
        method=found.method,
        subject=found.subject,
        changes=[
            audit_pb2.AuditChange(field=name, before=_value(before), after=_value(after))
            for name, (before, after) in found.changes.items()
        ],
    )


def changes(new: Message, mask: FieldMask, fields: Sequence[str]) -> dict[str, Any]:
    """Returns the changes that an update requests (AIP-134), by field, those of limits as a `LimitChange`.

    Args:
        new: The new values.
        mask: Names the fields to change; empty for those that `new` has.
        fields: The fields that can be changed.

    Raises:
        InvalidRequest: The mask names a field that cannot be changed, or the request changes nothing.
    """
    paths = list(mask.paths) or [field.name for field, _ in new.ListFields() if field.name in fields]
    if paths == ["*"]:
        paths = list(fields)
    single = {path.partition(".")[2] for path in paths if path.startswith(f"{_LIMITS}.")}
    named = [path for path in paths if not path.startswith(f"{_LIMITS}.")]
    if not paths or (unknown := [path for path in named if path not in fields]):
        wrong = f'"{unknown[0]}" cannot be changed' if paths else "it names no field"
        message = f"`update_mask`: {wrong}; the fields are: {', '.join(fields)}"
        raise InvalidRequest(message, param="update_mask")
    found = {name: _new_value(new, name) for name in named if name != _LIMITS}
    if _LIMITS in named:
        found[_LIMITS] = LimitChange(new.limits, replace=True)  # type: ignore[attr-defined]
    elif single:
        found[_LIMITS] = LimitChange({name: new.limits.get(name) for name in single})  # type: ignore[attr-defined]
    return found


def _new_value(new: Message, name: str) -> Any:
    """Returns the value of a field; None for an optional field that is not set."""
    field = new.DESCRIPTOR.fields_by_name[name]
    value = getattr(new, name)
    if field.is_repeated:
        return list(value)
    return None if field.has_presence and not new.HasField(name) else value


def _limits(limits: config.Limits) -> Mapping[str, float]:
    return limits.set_values()


def _value(value: Any) -> Value:
    return ParseDict(value, Value())
