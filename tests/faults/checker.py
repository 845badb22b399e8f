"""Checks a recorded history against Parley's guarantees, as a pure function of the history.

The guarantees: every acknowledged turn is stored once, complete and in order, with contiguous numbers; the upstream
receives the session's completed turns as context, and nothing else; a read shows every turn that was acknowledged
before it, at any replica, and every turn that an earlier read has shown; a deleted session stays deleted; a fork has
complete turns, and all that were acknowledged before it; the same key gets the same answer, and no second turn.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TypeVar

from tests.faults.history import (
    Delete,
    Fork,
    History,
    Listing,
    Operation,
    Outcome,
    Pair,
    Read,
    StoredMessage,
    Turn,
    UpstreamRequest,
    pairs_of,
    touched,
)

T = TypeVar("T", bound=Operation)


def violations(history: History) -> list[str]:
    """Returns a sentence for each violation, in a deterministic order."""
    return list(_Checker(history).run())


class _Checker:
    """Indexes a history by session and key, and checks one guarantee after the other."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._turns = self._of(Turn)
        self._forks = self._of(Fork)
        self._reads = [*self._of(Read), *history.final]
        self._acknowledged = [turn for turn in self._turns if turn.answer is not None]
        self._origins = {fork.made: fork for fork in self._forks if fork.made is not None}
        self._final = {read.session: read for read in history.final if read.outcome is Outcome.OK}
        self._deletions: dict[str, list[Delete]] = defaultdict(list)
        for delete in self._of(Delete):
            self._deletions[delete.session].append(delete)

        self._by_session = self._first_acknowledgements()

    def run(self) -> Iterator[str]:
        """Yields the violations."""
        yield from self._replicas_agree()
        for session, read in self._final.items():
            yield from self._shape(session, read.messages)
            yield from self._origin(session, pairs_of(read.messages))
        yield from self._stored_once()
        yield from self._order()
        yield from self._contexts()
        yield from self._complete_turns()
        yield from self._own_reads()
        yield from self._monotonic_reads()
        yield from self._listings()
        yield from self._deletes()
        yield from self._complete_forks()
        yield from self._keys()
        yield from self._forks_made_once()

    def _of(self, kind: type[T]) -> list[T]:
        return [operation for operation in self._history.operations if isinstance(operation, kind)]

    def _may_be_deleted(self, session: str, before: float) -> bool:
        """Returns whether a deletion that may have taken effect began before this time."""
        done = (Outcome.OK, Outcome.UNKNOWN)
        return any(delete.started < before and delete.outcome in done for delete in self._deletions[session])

    def _deleted_at(self, session: str) -> float | None:
        """Returns the end of the first acknowledged deletion."""
        ended = [delete.ended for delete in self._deletions[session] if delete.outcome is Outcome.OK]
        return min(ended, default=None)

    def _replicas_agree(self) -> Iterator[str]:
        for session, reads in groupby(sorted(self._history.final, key=attrgetter("session")), attrgetter("session")):
            shown = {(read.outcome, tuple(read.messages)) for read in reads}
            if len(shown) > 1:
                yield f"session {session}: the replicas show different messages in the end"

    def _shape(self, session: str, messages: Sequence[StoredMessage]) -> Iterator[str]:
        """Checks that the numbers are contiguous, and that no turn is in progress."""
        if running := sorted({one.turn for one in messages if one.state == "in_progress"}):
            yield f"session {session}: turns {running} are in progress for ever"
        numbers = [number for number, _ in groupby(one.turn for one in messages)]
        if numbers != sorted(set(numbers)):
            yield f"session {session}: turn numbers are out of order: {numbers}"
        copied = self._copied(session, numbers)
        start = copied[-1] if copied else 0
        own = [number for number in numbers if number > start]
        if own != list(range(start + 1, start + 1 + len(own))):
            yield f"session {session}: turn numbers are not contiguous: {numbers}"

    def _copied(self, session: str, numbers: Sequence[int]) -> list[int]:
        """Returns the numbers of the turns that a fork has copied, up to the last one; there may be gaps."""
        if session not in self._origins:
            return []
        questions = {turn.text for turn in self._turns if turn.session == session}
        first = min((one.turn for one in self._final[session].messages if one.text in questions), default=None)
        return [number for number in numbers if first is None or number < first]

    def _origin(self, session: str, pairs: Sequence[Pair]) -> Iterator[str]:
        """Checks that each completed turn has a question sent for this session, and the upstream's answer to it."""
        answers = {(request.question, request.answer) for request in self._history.requests}
        for pair in pairs:
            if (pair.question, pair.answer) not in answers:
                yield f"session {session}: turn {pair.number} is not what the upstream answered: {pair}"
            if not any(turn.text == pair.question and self._belongs(turn, session) for turn in self._turns):
                yield f"session {session}: no client sent {pair.question!r} to it"

    def _belongs(self, turn: Turn, session: str) -> bool:
        """Returns whether a turn was sent to the session, to one of its origins, or may have created it."""
        while True:
            actual = turn.session or (turn.answer.session if turn.answer else None)
            if actual is None or actual == session:
                return True
            if session not in self._origins:
                return False
            session = self._origins[session].session

    def _stored_once(self) -> Iterator[str]:
        """Checks that each acknowledged turn is stored once, unchanged, in its session and no other."""
        stored: dict[str, list[tuple[str, Pair]]] = defaultdict(list)
        for session, read in self._final.items():
            if session not in self._origins:
                for pair in pairs_of(read.messages):
                    stored[pair.question].append((session, pair))
        for text, found in stored.items():
            if len(found) > 1:
                yield f"{text!r} is stored {len(found)} times, in {sorted({session for session, _ in found})}"
        for turn in self._acknowledged:
            assert turn.answer is not None
            session = turn.answer.session
            if session not in self._final:
                if not self._may_be_deleted(session, float("inf")):
                    yield f"session {session} is lost, and with it {turn.text!r}"
                continue
            pairs = [pair for pair in pairs_of(self._final[session].messages) if pair.question == turn.text]
            if [pair.answer for pair in pairs] != [turn.answer.text]:
                yield f"session {session}: {turn.text!r} was acknowledged with {turn.answer.text!r}, stored as {pairs}"

    def _order(self) -> Iterator[str]:
        """Checks that a turn acknowledged before another one began has the smaller number."""
        for session, turns in self._by_session.items():
            if session not in self._final:
                continue
            numbers = {pair.question: pair.number for pair in pairs_of(self._final[session].messages)}
            for one in turns:
                for other in turns:
                    if one.ended < other.started and numbers.get(one.text, 0) > numbers.get(other.text, float("inf")):
                        yield f"session {session}: {one.text!r} was acknowledged before {other.text!r}, stored after it"

    def _first_acknowledgements(self) -> dict[str, list[Turn]]:
        """Returns the first acknowledgement of each turn, by session."""
        found: dict[str, dict[str, Turn]] = defaultdict(dict)
        for turn in sorted(self._acknowledged, key=attrgetter("ended")):
            assert turn.answer is not None
            found[turn.answer.session].setdefault(turn.text, turn)
        return {session: list(turns.values()) for session, turns in found.items()}

    def _contexts(self) -> Iterator[str]:
        """Checks that the upstream received the completed turns before each turn, in every attempt."""
        contexts: dict[str, list[list[str]]] = defaultdict(list)
        for read in self._final.values():
            pairs = pairs_of(read.messages)
            for number, question in {(one.turn, one.text) for one in read.messages if one.role == "user"}:
                before = [text for pair in pairs if pair.number < number for text in (pair.question, pair.answer)]
                contexts[question].append(before)
        for request in self._history.requests:
            expected = contexts.get(request.question)
            if expected and list(request.context) not in expected:
                yield f"the upstream received {request.question!r} after {list(request.context)}, not after {expected}"
            yield from self._foreign(request)

    def _foreign(self, request: UpstreamRequest) -> Iterator[str]:
        """Checks that a context has complete turns, each once, also for deleted sessions."""
        texts = list(request.context)
        answers = {(one.question, one.answer) for one in self._history.requests}
        pairs = list(zip(texts[::2], texts[1::2], strict=False))
        if len(texts) % 2 or not answers.issuperset(pairs) or len(set(texts)) < len(texts):
            yield f"the upstream received {request.question!r} after {texts}, which are not complete turns, each once"

    def _complete_turns(self) -> Iterator[str]:
        """Checks that a read shows one state of each turn, and a completed one with question and answer."""
        for read in self._reads:
            for number, messages in groupby(read.messages, attrgetter("turn")):
                shown = [(one.state, one.role) for one in messages]
                states = {state for state, _ in shown}
                if len(states) > 1 or (
                    states == {"completed"} and [role for _, role in shown] != ["user", "assistant"]
                ):
                    yield f"replica {read.replica}: a read of {read.session} shows half of turn {number}: {shown}"

    def _own_reads(self) -> Iterator[str]:
        """Checks that a read shows all turns that were acknowledged before it began."""
        for read in self._reads:
            for turn in self._by_session.get(read.session, ()) if read.outcome is not Outcome.UNKNOWN else ():
                assert turn.answer is not None
                if turn.ended > read.started or self._may_be_deleted(read.session, read.ended):
                    continue
                if not any(pair[1:] == (turn.text, turn.answer.text) for pair in pairs_of(read.messages)):
                    yield f"replica {read.replica}: a read of {read.session} misses {turn.text!r}, acknowledged before"

    def _monotonic_reads(self) -> Iterator[str]:
        """Checks that a read shows all completed turns of earlier reads, unchanged."""
        shown: dict[str, list[Read]] = defaultdict(list)
        for read in self._reads:
            if read.outcome is not Outcome.UNKNOWN:
                shown[read.session].append(read)
        for session, reads in shown.items():
            for later in reads:
                earlier = [read for read in reads if read.ended < later.started]
                if self._may_be_deleted(session, later.ended):
                    continue
                if missing := {pair for read in earlier for pair in pairs_of(read.messages)} - set(
                    pairs_of(later.messages)
                ):
                    yield f"replica {later.replica}: a read of {session} misses {missing}, which one has shown before"

    def _listings(self) -> Iterator[str]:
        """Checks that a list has the sessions with a turn acknowledged before it, with enough turns."""
        for listing in self._of(Listing):
            for session, turns in self._by_session.items() if listing.outcome is Outcome.OK else ():
                count = sum(turn.ended < listing.started for turn in turns)
                if count > listing.sessions.get(session, 0) and not self._may_be_deleted(session, listing.ended):
                    yield f"replica {listing.replica}: a list misses turns of session {session}: {count} acknowledged"

    def _deletes(self) -> Iterator[str]:
        """Checks that no operation finds a session after its deletion was acknowledged."""
        for operation in [*self._history.operations, *self._history.final]:
            for session in touched(operation):
                deleted = self._deleted_at(session)
                if deleted is not None and operation.started > deleted:
                    yield f"session {session} was deleted, and {type(operation).__name__.lower()} finds it: {operation}"

    def _complete_forks(self) -> Iterator[str]:
        """Checks that a fork has all turns acknowledged before it, and only completed ones of its origin."""
        for fork in self._forks:
            if fork.made is None or fork.made not in self._final:
                if fork.made is not None and not self._may_be_deleted(fork.made, float("inf")):
                    yield f"fork {fork.made} is lost"
                continue
            pairs = pairs_of(self._final[fork.made].messages)
            copied, started = {pair.question for pair in pairs}, self._first_begun(fork)
            for turn in self._by_session.get(fork.session, ()):
                if turn.ended < started and turn.text not in copied:
                    yield f"fork {fork.made} misses {turn.text!r}, acknowledged before"
            if fork.session in self._final:
                yield from self._prefix(fork, pairs)

    def _first_begun(self, fork: Fork) -> float:
        """Returns the earliest time of a fork: a retry with its key returns the first one."""
        same = [one for one in self._forks if one is fork or (fork.key is not None and one.key == fork.key)]
        return min(one.started for one in same)

    def _prefix(self, fork: Fork, pairs: Sequence[Pair]) -> Iterator[str]:
        """Checks that the copied turns of a fork are the first ones of its origin, without a gap."""
        assert fork.made is not None
        origin = pairs_of(self._final[fork.session].messages)
        own = {turn.text for turn in self._turns if turn.session == fork.made}
        copied = [pair for pair in pairs if pair.question not in own]
        if copied != origin[: len(copied)]:
            yield f"fork {fork.made} has {copied}, its origin {origin}"

    def _keys(self) -> Iterator[str]:
        """Checks that a key always gets the same answer."""
        answers: dict[str, set[object]] = defaultdict(set)
        for turn in self._acknowledged:
            if turn.key is not None:
                answers[turn.key].add(turn.answer)
        for fork in self._forks:
            if fork.key is not None and fork.made is not None:
                answers[fork.key].add(fork.made)
        for key, found in answers.items():
            if len(found) > 1:
                yield f"key {key} got {len(found)} different answers: {found}"

    def _forks_made_once(self) -> Iterator[str]:
        """Checks that no session has more forks than requests, counting each key once."""
        requested: dict[str, set[object]] = defaultdict(set)
        for index, fork in enumerate(self._forks):
            if fork.outcome in (Outcome.OK, Outcome.UNKNOWN) and fork.ended < float("inf"):
                requested[fork.session].add(fork.key or index)
        made = Counter(fork.session for name, fork in self._origins.items() if name in self._final)
        for session, count in made.items():
            if count > len(requested[session]):
                yield f"session {session} has {count} forks, and {len(requested[session])} were requested"
