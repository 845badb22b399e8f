"""A reference model of sessions and claims in dictionaries and lists. Tests compare stores with it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from parley.core.errors import (
    InvalidRequest,
    KeyInUse,
    KeyReused,
    ParleyError,
    ReplyDeleted,
    SessionBusy,
    SessionNotFound,
    TurnLost,
)
from parley.v1.message_pb2 import Message

LEASE = 10.0
PlainMessage = tuple[str, str]
"""Role and text."""


def to_message(plain: PlainMessage) -> Message:
    """Returns the message of a role and a text."""
    message = Message(role=plain[0])
    message.content.string_value = plain[1]
    return message


def to_plain(message: Message) -> PlainMessage:
    """Returns the role and the text of a message."""
    return message.role, message.content.string_value


"""A message: role and text."""


@dataclass
class ModelTurn:
    """A turn. `lease` is the time at which its lease expires; None after the turn has ended or lost it.

    The first `request_size` messages are those of the request. `receipt` represents the receipt of the turn.
    """

    number: int
    messages: list[PlainMessage]
    request_size: int
    state: str = "in_progress"
    reason: str | None = None
    lease: float | None = None
    receipt: int | None = None

    def shown(self) -> list[tuple[PlainMessage, int | None]]:
        """Returns the messages, with the receipt on the answer, or without an answer on the last message."""
        index = min(self.request_size, len(self.messages) - 1)
        return [(message, self.receipt if at == index else None) for at, message in enumerate(self.messages)]


@dataclass
class Conversation:
    """A session."""

    updated: float
    turns: list[ModelTurn] = field(default_factory=list)
    count: int = 0
    forked_from: str | None = None

    def completed(self) -> list[ModelTurn]:
        """Returns the turns that are part of the history."""
        return [turn for turn in self.turns if turn.state == "completed"]

    def busy(self, now: float) -> bool:
        """Returns whether a turn has a lease that has not expired."""
        return any(turn.lease is not None and turn.lease > now for turn in self.turns)


@dataclass
class ClaimedKey:
    """A claimed key. `reply` is set when its call has ended; `is_deleted` when the session of the reply is deleted."""

    digest: bytes
    fence: int
    lease: float
    updated: float
    reply: bytes | None = None
    session: str | None = None
    is_deleted: bool = False


class Model:
    """The sessions and claims of one account."""

    def __init__(self) -> None:
        self.sessions: dict[str, Conversation] = {}
        self.claims: dict[str, ClaimedKey] = {}
        self._fence = 0

    def begin(
        self, session: str, sent: list[PlainMessage], now: float, *, new: bool
    ) -> tuple[int, list[PlainMessage], list[PlainMessage]]:
        """Begins a turn; returns its number, the full history in its stored order, and the new messages."""
        if new:
            self.sessions[session] = Conversation(now)
        found = self.session(session)
        if found.busy(now):
            raise SessionBusy(session)
        stored = [message for turn in found.completed() for message in turn.messages]
        fresh = _fresh(stored, sent)
        for turn in found.turns:
            _crash(turn)
        found.count += 1
        found.updated = now
        found.turns.append(ModelTurn(found.count, list(fresh), len(fresh), lease=now + LEASE))
        return found.count, stored, fresh

    def end(self, session: str, number: int, state: str, answer: list[PlainMessage], receipt: int | None) -> None:
        """Ends a turn. Raises TurnLost if it has lost its lease."""
        turn = self.running(session, number)
        if turn is None:
            raise TurnLost
        turn.messages += answer
        turn.receipt = receipt
        turn.state, turn.lease = state, None
        turn.reason = None if state == "completed" else "failed"

    def running(self, session: str, number: int) -> ModelTurn | None:
        """Returns a turn that can still end, or None."""
        turns = self.sessions[session].turns if session in self.sessions else []
        return next((turn for turn in turns if turn.number == number and turn.lease is not None), None)

    def renew(self, session: str, number: int, now: float) -> None:
        """Extends a lease."""
        if turn := self.running(session, number):
            turn.lease = now + LEASE

    def reap(self, now: float, sessions_before: float, claims_before: float) -> None:
        """Marks crashed turns, and deletes old sessions and claims."""
        for found in self.sessions.values():
            for turn in found.turns:
                if turn.lease is not None and turn.lease <= now:
                    _crash(turn)
        for name, found in list(self.sessions.items()):
            if found.updated < sessions_before and not found.busy(now):
                self._remove(name)
        for key, lease in list(self.claims.items()):
            if lease.updated < claims_before and (lease.reply is not None or lease.is_deleted or lease.lease <= now):
                del self.claims[key]

    def fork(self, session: str, new: str, through: int | None, now: float) -> None:
        """Copies completed turns."""
        found = self.session(session)
        if through is not None and not 1 <= through <= found.count:
            raise InvalidRequest("no such turn", param="through_turn")
        copied = [turn for turn in found.completed() if through is None or turn.number <= through]
        copies = [replace(turn, messages=list(turn.messages)) for turn in copied]
        count = copies[-1].number if copies else 0
        self.sessions[new] = Conversation(now, copies, count, forked_from=session)

    def delete(self, session: str, now: float) -> None:
        """Removes a session that is not busy."""
        if self.session(session).busy(now):
            raise SessionBusy(session)
        self._remove(session)

    def claim(self, key: str, digest: bytes, now: float) -> int | bytes:
        """Claims a key; returns the fence, or the stored reply."""
        lease = self.claims.get(key)
        if lease is not None and lease.digest != digest:
            raise KeyReused
        if lease is not None and lease.is_deleted:
            raise ReplyDeleted
        if lease is not None and lease.reply is not None:
            return lease.reply
        if lease is not None and lease.lease > now:
            raise KeyInUse
        self._fence += 1
        self.claims[key] = ClaimedKey(digest, self._fence, now + LEASE, now)
        return self._fence

    def end_claim(self, key: str, fence: int, reply: bytes | None, session: str | None, now: float) -> None:
        """Stores the reply, or without one releases the key."""
        lease = self.lease(key, fence)
        if lease is None:
            raise TurnLost
        if reply is None:
            del self.claims[key]
        else:
            lease.reply, lease.session, lease.updated = reply, session, now

    def lease(self, key: str, fence: int) -> ClaimedKey | None:
        """Returns the claim if it has this fence and has not ended, else None."""
        lease = self.claims.get(key)
        running = lease is not None and lease.fence == fence and lease.reply is None and not lease.is_deleted
        return lease if running else None

    def session(self, session: str) -> Conversation:
        """Returns a session. Raises SessionNotFound."""
        if session not in self.sessions:
            raise SessionNotFound(session)
        return self.sessions[session]

    def _remove(self, session: str) -> None:
        del self.sessions[session]
        for lease in self.claims.values():
            if lease.session == session:
                lease.reply, lease.session, lease.is_deleted = None, None, True


def _fresh(stored: list[PlainMessage], sent: list[PlainMessage]) -> list[PlainMessage]:
    """Returns the new messages of a request: without a repeated history and without known leading system messages."""
    compared = [message for message in stored if message[0] != "system"]
    indexes = [index for index, message in enumerate(sent) if message[0] != "system"][: len(compared)]
    if stored and sent[: len(stored)] == stored:
        fresh = sent[len(stored) :]
    elif compared and [sent[index] for index in indexes] == compared:
        fresh = [message for message in sent[: indexes[-1]] if message[0] == "system" and message not in stored]
        fresh += sent[indexes[-1] + 1 :]
    else:
        leading = 0
        while leading < len(sent) and sent[leading][0] == "system":
            leading += 1
        return [*(message for message in sent[:leading] if message not in stored), *sent[leading:]] or sent
    if not fresh:
        raise InvalidRequest("nothing new", param="messages")
    return fresh


def _crash(turn: ModelTurn) -> None:
    if turn.lease is not None:
        turn.state, turn.reason, turn.lease = "incomplete", "crashed", None


def outcome(work: Callable[[], Any]) -> tuple[Any, type | None]:
    """Returns the result of a call of a store or the model, and the type of its error."""
    try:
        return work(), None
    except ParleyError as error:
        return None, type(error)
