"""Import of the sessions of an export: JSON Lines as `account_export` writes them."""

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from parley.core.errors import InvalidRequest, SessionBusy, SessionNotFound
from parley.core.messages import extra_fields
from parley.core.messages.ids import canonical_session_id
from parley.core.messages.json_proto import fill
from parley.core.messages.json_values import MAX_TEXT_DEPTH, is_deep
from parley.core.messages.roles import ROLES
from parley.core.offload import offload
from parley.core.ports import Caller, SessionStore, StorageLimits
from parley.core.session_ids import chosen_key, is_valid, session_keys
from parley.core.sessions.additions import CheckMessages
from parley.core.sessions.export import TURN_FIELDS
from parley.core.sessions.labels import (
    MAX_LABELS,
    MAX_NAME_LENGTH,
    MAX_VALUE_LENGTH,
    name_fault,
    title_fault,
    value_fault,
)
from parley.v1.sessions_pb2 import Session, SessionMessage

_OBJECT = "chat.session"
_STATES = frozenset({"in_progress", "completed", "incomplete"})
_REASONS = frozenset({"", "cancelled", "failed", "deadline", "shutdown", "crashed"})
_MAX_DEPTH = (
    MAX_TEXT_DEPTH + 9
)  # the text of unknown fields is up to nine levels deep in a line, as that of a tool call
_MAX_MODEL_LENGTH = 256
_MAX_RECORD_BYTES = 64 * 1024  # of the usage and of the receipt of a turn: Parley makes them of a few hundred bytes


@dataclass(slots=True)
class ImportedSession:
    """A session of an export.

    Attributes:
        line: The number of its first line, from 1.
        session: Its properties.
        messages: Its messages, the oldest first.
    """

    line: int
    session: Session
    messages: list[SessionMessage] = field(default_factory=list)


@dataclass(slots=True)
class Counts:
    """What was imported: the sessions that were added, and those that the account had."""

    imported: int = 0
    skipped: int = 0


async def import_sessions(  # noqa: PLR0913, PLR0917 - what an import depends on
    store: SessionStore,
    caller: Caller,
    lines: Iterable[bytes],
    storage: StorageLimits,
    counts: Counts,
    check: CheckMessages | None = None,
) -> None:
    """Adds the sessions to the caller's account.

    Args:
        store: The store.
        caller: The caller, whose key may be limited to models.
        lines: The lines.
        storage: Limits what is stored.
        counts: Receives the numbers, also before a failure.
        check: Checks the messages of a session; None if no guard does.

    Raises:
        InvalidRequest: A line is invalid; the message has its number. The sessions before it are stored.
        StorageLimitExceeded: A session exceeds a limit; those before it are stored.
        SessionBusy: A deleted session with the id of a session is being removed; those before it are stored.
        GuardRefused: A guard refuses a session; those before it are stored.
        GuardUnavailable: A guard failed, and is closed on failure; the sessions before are stored.
    """
    sessions = read(lines)
    while (one := await offload(next, sessions, None)) is not None:  # other calls run meanwhile
        if not caller.may_use(one.session.model):
            raise _invalid(one.line, f'this key may not use the model "{one.session.model[:256]}"')
        if check is not None:
            await _check(one, check)
        if await _is_added(store, caller.account, one, storage):
            counts.imported += 1
        else:
            counts.skipped += 1


async def _check(one: ImportedSession, check: CheckMessages) -> None:
    """Replaces the messages of a session by what may be stored."""
    checked = await check(one.session.model, one.session.id, [item.message for item in one.messages])
    for item, message in zip(one.messages, checked, strict=True):
        item.message.CopyFrom(message)


async def _is_added(store: SessionStore, account: str, one: ImportedSession, storage: StorageLimits) -> bool:
    """Adds a session unless the account has it; returns whether it did. Raises SessionBusy."""
    for key in session_keys(account, one.session.id):
        try:
            await store.get_session(account, key)
        except SessionNotFound:
            continue
        return False
    # Its id may be that of another account's session, so it is stored as one that the caller has chosen.
    key = chosen_key(account, one.session.id)
    if await store.import_session(account, key, one.session, one.messages, storage):
        return True
    try:
        await store.get_session(account, key)  # another call has added it
    except SessionNotFound:
        raise SessionBusy(key) from None  # a deleted session with the id is being removed
    return False


def read(lines: Iterable[bytes]) -> Iterator[ImportedSession]:
    """Yields the sessions of an export, each complete. Raises InvalidRequest."""
    current: ImportedSession | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        data = _object(number, line.removeprefix(BOM_UTF8))  # some editors write it
        if "role" not in data and "message" not in data:
            if current is not None:
                yield current
            current = ImportedSession(number, _session(number, data))
        elif current is None:
            raise _invalid(number, "the first line must have the properties of a session")
        else:
            current.messages.append(_message(number, data, current))
    if current is not None:
        _require_complete(current)
        yield current


def _require_complete(last: ImportedSession) -> None:
    """Raises InvalidRequest if the last session has fewer turns than it had at the export: the file is cut."""
    found = last.messages[-1].turn if last.messages else 0
    if found < last.session.turn_count:
        reason = (
            f"the session has {last.session.turn_count} turns, but the lines end with turn {found}; export it again,"
            " or set `turn_count` to import what is there"
        )
        raise _invalid(last.line, reason)


def _object(number: int, line: bytes) -> dict[str, Any]:
    try:
        data = extra_fields.loads_strictly(line)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise _invalid(number, "it must be a JSON object")
    if is_deep(data, _MAX_DEPTH):
        raise _invalid(number, "it is nested too deeply")
    return data


def _session(number: int, data: dict[str, Any]) -> Session:
    session = Session()
    try:
        fill(session, data)
    except ValueError as error:
        raise _invalid(number, str(error)) from error
    session.id = canonical_session_id(session.id)
    if session.object != _OBJECT or not session.model or not is_valid(session.id):
        raise _invalid(number, f"a session needs `object` ({_OBJECT}), `model`, and an `id` of printable ASCII")
    if fault := _session_fault(session):
        raise _invalid(number, fault)
    return session


def _session_fault(session: Session) -> str | None:
    """Returns what the other calls would not accept of a session; None for a valid one."""
    if len(session.model) > _MAX_MODEL_LENGTH or "\0" in session.model:
        return f"`model` may have at most {_MAX_MODEL_LENGTH} characters, and no NUL"
    if session.HasField("forked_from") and not is_valid(session.forked_from):
        return "`forked_from` must be the id of a session"
    if len(session.labels) > MAX_LABELS:
        return f"`labels` may have at most {MAX_LABELS} entries"
    faults = (name_fault(name) or value_fault(value) for name, value in session.labels.items())
    return title_fault(session.title) or next(filter(None, faults), None)


def _message(number: int, data: dict[str, Any], current: ImportedSession) -> SessionMessage:
    found = SessionMessage()
    try:
        fill(found, data if "role" not in data else _nested(data))
    except ValueError as error:
        raise _invalid(number, str(error)) from error
    last = current.messages[-1].turn if current.messages else 1
    if found.state not in _STATES or not last <= found.turn < 2**31:
        raise _invalid(number, "a message needs its `state`, and a `turn` that is not before that of the line above")
    if found.reason not in _REASONS:
        raise _invalid(number, f"`reason` must be one of: {', '.join(sorted(_REASONS)[1:])}")
    if found.message.role not in ROLES:
        raise _invalid(number, f"`role` must be one of: {', '.join(ROLES)}")
    if fault := _turn_fault(found):
        raise _invalid(number, fault)
    return found


def _turn_fault(message: SessionMessage) -> str | None:
    """Returns what the other calls would not accept, or not make, of a turn; None for a valid one."""
    metadata = message.metadata.items()
    if len(metadata) > MAX_LABELS or any(
        len(name) > MAX_NAME_LENGTH or len(value) > MAX_VALUE_LENGTH for name, value in metadata
    ):
        limits = f"{MAX_LABELS} labels, keys to {MAX_NAME_LENGTH} characters, values to {MAX_VALUE_LENGTH}"
        return f"`metadata` may have at most {limits}"
    if max(message.usage.ByteSize(), message.receipt.ByteSize()) > _MAX_RECORD_BYTES:
        return f"`usage` and `receipt` may have at most {_MAX_RECORD_BYTES >> 10} KiB each"
    return None


def _nested(data: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a turn, and those of its message in `message`."""
    turn = {name: value for name, value in data.items() if name in TURN_FIELDS}
    return {**turn, "message": {name: value for name, value in data.items() if name not in TURN_FIELDS}}


def _invalid(number: int, reason: str) -> InvalidRequest:
    return InvalidRequest(f"Line {number} of the import: {reason}", param="body")
