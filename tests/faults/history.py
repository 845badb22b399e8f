"""What a run of the recorder has seen: every operation of its clients, and every request at the upstream."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class Outcome(Enum):
    """How an operation ended for its client."""

    OK = "ok"
    REFUSED = "refused"  # the service said that nothing was done
    NOT_FOUND = "not found"  # the session does not exist, or is deleted
    UNKNOWN = "unknown"  # a broken connection, a time-out, an outage: it may have been done


@dataclass(frozen=True, slots=True)
class Answer:
    """What a turn returned."""

    id: str
    session: str
    text: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A message as a read shows it."""

    turn: int
    state: str
    role: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of one client. Times are of one monotonic clock."""

    started: float
    ended: float
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Operation):
    """A completion. `text` is unique to the intention: only a retry with the same `key` sends it again."""

    text: str
    session: str | None  # None: a new one
    key: str | None = None
    answer: Answer | None = None  # where the outcome is OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork(Operation):
    """A fork of all completed turns. One that was found in the end, and whose call did not tell, has ended never."""

    session: str
    key: str | None = None
    made: str | None = None  # where the outcome is OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete(Operation):
    """A deletion."""

    session: str
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Operation):
    """A read of a whole session at one replica."""

    session: str
    replica: int
    kept: Sequence[Kept] = ()  # where the outcome is OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Operation):
    """A list of all sessions at one replica: their ids and numbers of turns."""

    replica: int
    sessions: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """A request at the upstream: the texts before the question, the question, and what was answered."""

    context: Sequence[str]
    asked: str
    answered: str


@dataclass(slots=True)
class History:
    """All of it. `final` are reads after the end, when no turn is in progress, of every session at every replica."""

    operations: list[Operation] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    final: list[Read] = field(default_factory=list)
