"""A plain model of what sessions and claims mean: dictionaries and lists, no database. Stores are compared with it."""

from dataclasses import dataclass, field, replace

from parley.core.errors import InvalidRequest, KeyInUse, KeyReused, ReplyDeleted, SessionBusy, SessionNotFound, TurnLost

LEASE = 10.0
Said = tuple[str, str]
"""A message: role and text."""


@dataclass
class ModelTurn:
    """A turn. `lease` is when its lease runs out; None once it has been given back or taken away.

    Of its messages the first `asked` are the request's. `receipt` stands for the receipt that it ended with.
    """

    number: int
    messages: list[Said]
    asked: int
    state: str = "in_progress"
    reason: str | None = None
    lease: float | None = None
    receipt: int | None = None

    def shown(self) -> list[tuple[Said, int | None]]:
        """Its messages, and the receipt on the answer, or where there is none on the last."""
        place = min(self.asked, len(self.messages) - 1)
        return [(said, self.receipt if at == place else None) for at, said in enumerate(self.messages)]


@dataclass
class Conversation:
    """A session."""

    updated: float
    talks: list[ModelTurn] = field(default_factory=list)
    count: int = 0
    forked_from: str | None = None

    def completed(self) -> list[ModelTurn]:
        """The turns that count."""
        return [talk for talk in self.talks if talk.state == "completed"]

    def busy(self, now: float) -> bool:
        """Tells whether a turn is in progress, as far as its lease tells."""
        return any(talk.lease is not None and talk.lease > now for talk in self.talks)


@dataclass
class ClaimedKey:
    """A claimed key: `reply` is there once it was answered, until its session `is_gone`."""

    digest: bytes
    fence: int
    lease: float
    updated: float
    reply: bytes | None = None
    session: str | None = None
    is_gone: bool = False


class Model:
    """All sessions and claims of one account."""

    def __init__(self) -> None:
        self.sessions: dict[str, Conversation] = {}
        self.claims: dict[str, ClaimedKey] = {}
        self._fence = 0

    def begin(self, session: str, sent: list[Said], now: float, *, new: bool) -> tuple[int, list[Said], list[Said]]:
        """Begins a turn; returns its number, the whole history without system messages first, and what is new."""
        if new:
            self.sessions[session] = Conversation(now)
        known = self.session(session)
        if known.busy(now):
            raise SessionBusy(session)
        stored = [said for talk in known.completed() for said in talk.messages]
        fresh = _fresh(stored, sent)
        for talk in known.talks:
            _crash(talk)
        known.count += 1
        known.updated = now
        known.talks.append(ModelTurn(known.count, list(fresh), len(fresh), lease=now + LEASE))
        return known.count, stored, fresh

    def end(self, session: str, number: int, state: str, answer: list[Said], receipt: int | None) -> None:
        """Ends a turn that nobody has taken the lease of."""
        talk = self.running(session, number)
        if talk is None:
            raise TurnLost
        talk.messages += answer
        talk.receipt = receipt
        talk.state, talk.lease = state, None
        talk.reason = None if state == "completed" else "failed"

    def running(self, session: str, number: int) -> ModelTurn | None:
        """Finds a turn that can still be ended."""
        talks = self.sessions[session].talks if session in self.sessions else []
        return next((talk for talk in talks if talk.number == number and talk.lease is not None), None)

    def renew(self, session: str, number: int, now: float) -> None:
        """Extends a lease."""
        if talk := self.running(session, number):
            talk.lease = now + LEASE

    def reap(self, now: float, sessions_before: float, claims_before: float) -> None:
        """Clears what crashed and what is old."""
        for known in self.sessions.values():
            for talk in known.talks:
                if talk.lease is not None and talk.lease <= now:
                    _crash(talk)
        for name, known in list(self.sessions.items()):
            if known.updated < sessions_before and not known.busy(now):
                self._remove(name)
        for key, lease in list(self.claims.items()):
            if lease.updated < claims_before and (lease.reply is not None or lease.is_gone or lease.lease <= now):
                del self.claims[key]

    def fork(self, session: str, new: str, through: int | None, now: float) -> None:
        """Copies completed turns."""
        known = self.session(session)
        if through is not None and not 1 <= through <= known.count:
            raise InvalidRequest("no such turn", param="through_turn")
        taken = [talk for talk in known.completed() if through is None or talk.number <= through]
        copies = [replace(talk, messages=list(talk.messages)) for talk in taken]
        count = copies[-1].number if copies else 0
        self.sessions[new] = Conversation(now, copies, count, forked_from=session)

    def delete(self, session: str, now: float) -> None:
        """Removes a session that is not busy."""
        if self.session(session).busy(now):
            raise SessionBusy(session)
        self._remove(session)

    def claim(self, key: str, digest: bytes, now: float) -> int | bytes:
        """Claims a key: returns the fence, or the reply."""
        lease = self.claims.get(key)
        if lease is not None and lease.digest != digest:
            raise KeyReused
        if lease is not None and lease.is_gone:
            raise ReplyDeleted
        if lease is not None and lease.reply is not None:
            return lease.reply
        if lease is not None and lease.lease > now:
            raise KeyInUse
        self._fence += 1
        self.claims[key] = ClaimedKey(digest, self._fence, now + LEASE, now)
        return self._fence

    def end_claim(self, key: str, fence: int, reply: bytes | None, session: str | None, now: float) -> None:
        """Keeps the reply, for a day from now, or frees the key."""
        lease = self.lease(key, fence)
        if lease is None:
            raise TurnLost
        if reply is None:
            del self.claims[key]
        else:
            lease.reply, lease.session, lease.updated = reply, session, now

    def lease(self, key: str, fence: int) -> ClaimedKey | None:
        """Finds a claim that is still this one."""
        lease = self.claims.get(key)
        running = lease is not None and lease.fence == fence and lease.reply is None and not lease.is_gone
        return lease if running else None

    def session(self, session: str) -> Conversation:
        """Finds a session. Raises SessionNotFound."""
        if session not in self.sessions:
            raise SessionNotFound(session)
        return self.sessions[session]

    def _remove(self, session: str) -> None:
        del self.sessions[session]
        for lease in self.claims.values():
            if lease.session == session:
                lease.reply, lease.session, lease.is_gone = None, None, True


def _fresh(stored: list[Said], sent: list[Said]) -> list[Said]:
    """What of a request is new: a repeated beginning is not, nor a leading system message that is there already."""
    spoken = [said for said in stored if said[0] != "system"]
    places = [place for place, said in enumerate(sent) if said[0] != "system"][: len(spoken)]
    if stored and sent[: len(stored)] == stored:
        fresh = sent[len(stored) :]
    elif spoken and [sent[place] for place in places] == spoken:
        fresh = [said for said in sent[: places[-1]] if said[0] == "system" and said not in stored]
        fresh += sent[places[-1] + 1 :]
    else:
        leading = 0
        while leading < len(sent) and sent[leading][0] == "system":
            leading += 1
        return [*(said for said in sent[:leading] if said not in stored), *sent[leading:]] or sent
    if not fresh:
        raise InvalidRequest("nothing new", param="messages")
    return fresh


def _crash(talk: ModelTurn) -> None:
    if talk.lease is not None:
        talk.state, talk.reason, talk.lease = "incomplete", "crashed", None
