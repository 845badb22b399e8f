"""The record of a run: every operation of its clients, and every request at the upstream."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple


class Outcome(Enum):
    """The end of an operation for its client."""

    OK = "ok"
    REFUSED = "refused"  # the service reports that nothing was changed
    NOT_FOUND = "not found"  # the session does not exist, or is deleted
    UNKNOWN = "unknown"  # after a broken connection, a timeout or an outage, the operation may have taken effect


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a turn."""

    id: str
    session: str
    text: str


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as shown by a read."""

    turn: int
    state: str
    role: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of one client. Times are on one monotonic clock."""

    started: float
    ended: float
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Operation):
    """A completion. `text` is unique per intention: only a retry with the same `key` repeats it."""

    text: str
    session: str | None  # None for a new session
    key: str | None = None
    answer: Answer | None = None  # if the outcome is OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork(Operation):
    """A fork of all completed turns. A fork that was only found in the final reads has no end."""

    session: str
    key: str | None = None
    made: str | None = None  # if the outcome is OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete(Operation):
    """A deletion."""

    session: str
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Operation):
    """A read of all messages of a session at one replica."""

    session: str
    replica: int
    messages: Sequence[StoredMessage] = ()  # if the outcome is OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Operation):
    """A list of all sessions at one replica: their ids and numbers of turns."""

    replica: int
    sessions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request at the upstream: the texts before the question, the question, and the answer."""

    context: Sequence[str]
    question: str
    answer: str


@dataclass(slots=True)
class History:
    """The complete record. `final` are reads of every session at every replica, after all turns have ended."""

    operations: list[Operation] = field(default_factory=list)
    requests: list[UpstreamRequest] = field(default_factory=list)
    final: list[Read] = field(default_factory=list)


class Pair(NamedTuple):
    """A completed turn: question and answer."""

    number: int
    question: str
    answer: str


def touched(operation: Operation) -> list[str]:
    """Returns the sessions that an operation has found."""
    match operation:
        case Turn(answer=answer) if answer is not None:
            return [answer.session]
        case Fork(outcome=Outcome.OK, session=session, key=None) | Read(outcome=Outcome.OK, session=session):
            return [session]
        case Delete(outcome=Outcome.OK, session=session, key=None):
            return [session]
        case Listing(outcome=Outcome.OK, sessions=sessions):
            return list(sessions)
    return []


def pairs_of(messages: Sequence[StoredMessage]) -> list[Pair]:
    """Returns the completed turns with question and answer; several of either are joined by a bar."""
    completed = [one for one in messages if one.state == "completed"]
    found = []
    for number, group in groupby(completed, attrgetter("turn")):
        texts = {role: [one.text for one in items] for role, items in _by_role(list(group)).items()}
        found.append(Pair(number, "|".join(texts.get("user", ())), "|".join(texts.get("assistant", ()))))
    return found


def _by_role(messages: Sequence[StoredMessage]) -> dict[str, list[StoredMessage]]:
    roles = Counter(one.role for one in messages)
    return {role: [one for one in messages if one.role == role] for role in roles}
