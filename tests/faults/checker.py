"""Checks a recorded history against what Parley promises. Pure: it finds violations, and knows no process.

The promises: every acknowledged turn is kept once, whole and in order, under contiguous numbers; the upstream gets the
session's completed turns as context, and nothing else; a read shows everything that was acknowledged before it, at
whichever replica, and everything that an earlier read has shown; what is deleted stays deleted; a fork has whole turns,
all that were acknowledged before it; the same key gets the same answer, and no second turn.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, TypeVar

from tests.faults.history import Delete, Fork, History, Kept, Listing, Operation, Outcome, Read, Seen, Turn

T = TypeVar("T", bound=Operation)


def violations(history: History) -> list[str]:
    """Returns a sentence for each promise that the history breaks, the same one each time."""
    return list(_Checker(history).run())


class _Pair(NamedTuple):
    """A completed turn: what was asked and answered."""

    number: int
    asked: str
    answered: str


class _Checker:
    """Indexes a history by session and key, and checks one promise after the other."""

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
        """Yields what is wrong."""
        yield from self._replicas_agree()
        for session, read in self._final.items():
            yield from self._shape(session, read.kept)
            yield from self._origin(session, _pairs(read.kept))
        yield from self._kept_once()
        yield from self._order()
        yield from self._contexts()
        yield from self._whole_turns()
        yield from self._own_reads()
        yield from self._monotonic_reads()
        yield from self._listings()
        yield from self._deletes()
        yield from self._whole_forks()
        yield from self._keys()
        yield from self._forks_made_once()

    def _of(self, kind: type[T]) -> list[T]:
        return [operation for operation in self._history.operations if isinstance(operation, kind)]

    def _may_be_deleted(self, session: str, before: float) -> bool:
        """Reports whether a deletion that may have been done began before this time."""
        done = (Outcome.OK, Outcome.UNKNOWN)
        return any(delete.started < before and delete.outcome in done for delete in self._deletions[session])

    def _deleted_at(self, session: str) -> float | None:
        """Returns when the first acknowledged deletion ended."""
        ended = [delete.ended for delete in self._deletions[session] if delete.outcome is Outcome.OK]
        return min(ended, default=None)

    def _replicas_agree(self) -> Iterator[str]:
        for session, reads in groupby(sorted(self._history.final, key=attrgetter("session")), attrgetter("session")):
            shown = {(read.outcome, tuple(read.kept)) for read in reads}
            if len(shown) > 1:
                yield f"session {session}: the replicas show different messages in the end"

    def _shape(self, session: str, kept: Sequence[Kept]) -> Iterator[str]:
        """Checks the numbers, and that nothing is in progress."""
        if running := sorted({one.turn for one in kept if one.state == "in_progress"}):
            yield f"session {session}: turns {running} are in progress for ever"
        numbers = [number for number, _ in groupby(one.turn for one in kept)]
        if numbers != sorted(set(numbers)):
            yield f"session {session}: turn numbers are out of order: {numbers}"
        copied = self._copied(session, numbers)
        start = copied[-1] if copied else 0
        own = [number for number in numbers if number > start]
        if own != list(range(start + 1, start + 1 + len(own))):
            yield f"session {session}: turn numbers are not contiguous: {numbers}"

    def _copied(self, session: str, numbers: Sequence[int]) -> list[int]:
        """Returns the numbers of turns that a fork has from its origin, which may have gaps: up to the last of them."""
        if session not in self._origins:
            return []
        asked = {turn.text for turn in self._turns if turn.session == session}
        first = min((one.turn for one in self._final[session].kept if one.text in asked), default=None)
        return [number for number in numbers if first is None or number < first]

    def _origin(self, session: str, pairs: Sequence[_Pair]) -> Iterator[str]:
        """Checks that each completed turn was asked by a client, for this session, and answered so by the upstream."""
        answered = {(seen.asked, seen.answered) for seen in self._history.seen}
        for pair in pairs:
            if (pair.asked, pair.answered) not in answered:
                yield f"session {session}: turn {pair.number} is not what the upstream answered: {pair}"
            if not any(turn.text == pair.asked and self._belongs(turn, session) for turn in self._turns):
                yield f"session {session}: nobody sent {pair.asked!r} to it"

    def _belongs(self, turn: Turn, session: str) -> bool:
        """Reports whether a turn was sent to the session, to one that it was forked from, or may have made it."""
        while True:
            known = turn.session or (turn.answer.session if turn.answer else None)
            if known is None or known == session:
                return True
            if session not in self._origins:
                return False
            session = self._origins[session].session

    def _kept_once(self) -> Iterator[str]:
        """Checks that each acknowledged turn is in its session, once, as acknowledged, and in no other."""
        places: dict[str, list[tuple[str, _Pair]]] = defaultdict(list)
        for session, read in self._final.items():
            if session not in self._origins:
                for pair in _pairs(read.kept):
                    places[pair.asked].append((session, pair))
        for text, found in places.items():
            if len(found) > 1:
                yield f"{text!r} is kept {len(found)} times, in {sorted({session for session, _ in found})}"
        for turn in self._acknowledged:
            assert turn.answer is not None
            session = turn.answer.session
            if session not in self._final:
                if not self._may_be_deleted(session, float("inf")):
                    yield f"session {session} is lost, and with it {turn.text!r}"
                continue
            pairs = [pair for pair in _pairs(self._final[session].kept) if pair.asked == turn.text]
            if [pair.answered for pair in pairs] != [turn.answer.text]:
                yield f"session {session}: {turn.text!r} was acknowledged with {turn.answer.text!r}, kept as {pairs}"

    def _order(self) -> Iterator[str]:
        """Checks that a turn acknowledged before another one began has the smaller number."""
        for session, turns in self._by_session.items():
            if session not in self._final:
                continue
            numbers = {pair.asked: pair.number for pair in _pairs(self._final[session].kept)}
            for one in turns:
                for other in turns:
                    if one.ended < other.started and numbers.get(one.text, 0) > numbers.get(other.text, float("inf")):
                        yield f"session {session}: {one.text!r} was acknowledged before {other.text!r}, kept after it"

    def _first_acknowledgements(self) -> dict[str, list[Turn]]:
        """Returns the first acknowledgement of each turn, by its session."""
        found: dict[str, dict[str, Turn]] = defaultdict(dict)
        for turn in sorted(self._acknowledged, key=attrgetter("ended")):
            assert turn.answer is not None
            found[turn.answer.session].setdefault(turn.text, turn)
        return {session: list(turns.values()) for session, turns in found.items()}

    def _contexts(self) -> Iterator[str]:
        """Checks that the upstream saw the completed turns before each turn, whichever attempt it belongs to."""
        contexts: dict[str, list[list[str]]] = defaultdict(list)
        for read in self._final.values():
            pairs = _pairs(read.kept)
            for number, asked in {(one.turn, one.text) for one in read.kept if one.role == "user"}:
                before = [text for pair in pairs if pair.number < number for text in (pair.asked, pair.answered)]
                contexts[asked].append(before)
        for seen in self._history.seen:
            expected = contexts.get(seen.asked)
            if expected and list(seen.context) not in expected:
                yield f"the upstream was asked {seen.asked!r} after {list(seen.context)}, not after {expected}"
            yield from self._foreign(seen)

    def _foreign(self, seen: Seen) -> Iterator[str]:
        """Checks, also where the session is deleted, that a context has whole turns, each once."""
        texts = list(seen.context)
        answered = {(one.asked, one.answered) for one in self._history.seen}
        pairs = list(zip(texts[::2], texts[1::2], strict=False))
        if len(texts) % 2 or not answered.issuperset(pairs) or len(set(texts)) < len(texts):
            yield f"the upstream was asked {seen.asked!r} after {texts}, which are not whole turns, each once"

    def _whole_turns(self) -> Iterator[str]:
        """Checks that a read shows one state of each turn, and a completed one with its question and its answer."""
        for read in self._reads:
            for number, messages in groupby(read.kept, attrgetter("turn")):
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
                if not any(pair[1:] == (turn.text, turn.answer.text) for pair in _pairs(read.kept)):
                    yield f"replica {read.replica}: a read of {read.session} misses {turn.text!r}, acknowledged before"

    def _monotonic_reads(self) -> Iterator[str]:
        """Checks that a read shows all completed turns that an earlier one has shown, as they were."""
        shown: dict[str, list[Read]] = defaultdict(list)
        for read in self._reads:
            if read.outcome is not Outcome.UNKNOWN:
                shown[read.session].append(read)
        for session, reads in shown.items():
            for later in reads:
                earlier = [read for read in reads if read.ended < later.started]
                if self._may_be_deleted(session, later.ended):
                    continue
                if missing := {pair for read in earlier for pair in _pairs(read.kept)} - set(_pairs(later.kept)):
                    yield f"replica {later.replica}: a read of {session} misses {missing}, which one has shown before"

    def _listings(self) -> Iterator[str]:
        """Checks that a list has the sessions with a turn acknowledged before it, and enough turns of each."""
        for listing in self._of(Listing):
            for session, turns in self._by_session.items() if listing.outcome is Outcome.OK else ():
                known = sum(turn.ended < listing.started for turn in turns)
                if known > listing.sessions.get(session, 0) and not self._may_be_deleted(session, listing.ended):
                    yield f"replica {listing.replica}: a list misses turns of session {session}: {known} acknowledged"

    def _deletes(self) -> Iterator[str]:
        """Checks that nothing finds a session after its deletion was acknowledged."""
        for operation in [*self._history.operations, *self._history.final]:
            for session in _touched(operation):
                deleted = self._deleted_at(session)
                if deleted is not None and operation.started > deleted:
                    yield f"session {session} was deleted, and {type(operation).__name__.lower()} finds it: {operation}"

    def _whole_forks(self) -> Iterator[str]:
        """Checks that a fork has all turns acknowledged before it, and none that its origin has not completed."""
        for fork in self._forks:
            if fork.made is None or fork.made not in self._final:
                if fork.made is not None and not self._may_be_deleted(fork.made, float("inf")):
                    yield f"fork {fork.made} is lost"
                continue
            pairs = _pairs(self._final[fork.made].kept)
            copied, started = {pair.asked for pair in pairs}, self._first_begun(fork)
            for turn in self._by_session.get(fork.session, ()):
                if turn.ended < started and turn.text not in copied:
                    yield f"fork {fork.made} misses {turn.text!r}, acknowledged before"
            if fork.session in self._final:
                yield from self._prefix(fork, pairs)

    def _first_begun(self, fork: Fork) -> float:
        """Returns when the fork may have been made first: a retry with its key returns the one that was made then."""
        same = [one for one in self._forks if one is fork or (fork.key is not None and one.key == fork.key)]
        return min(one.started for one in same)

    def _prefix(self, fork: Fork, pairs: Sequence[_Pair]) -> Iterator[str]:
        """Checks that the turns that a fork has copied are the first ones of its origin, without a gap."""
        assert fork.made is not None
        origin = _pairs(self._final[fork.session].kept)
        own = {turn.text for turn in self._turns if turn.session == fork.made}
        copied = [pair for pair in pairs if pair.asked not in own]
        if copied != origin[: len(copied)]:
            yield f"fork {fork.made} has {copied}, its origin {origin}"

    def _keys(self) -> Iterator[str]:
        """Checks that a key always got the same answer."""
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
        """Checks that no session has more forks than were asked for, each key once."""
        asked: dict[str, set[object]] = defaultdict(set)
        for place, fork in enumerate(self._forks):
            if fork.outcome in (Outcome.OK, Outcome.UNKNOWN) and fork.ended < float("inf"):
                asked[fork.session].add(fork.key or place)
        made = Counter(fork.session for name, fork in self._origins.items() if name in self._final)
        for session, count in made.items():
            if count > len(asked[session]):
                yield f"session {session} has {count} forks, and {len(asked[session])} were asked for"


def _touched(operation: Operation) -> list[str]:
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


def _pairs(kept: Sequence[Kept]) -> list[_Pair]:
    """Returns the completed turns, each with its question and answer; several of either are joined by a bar."""
    completed = [one for one in kept if one.state == "completed"]
    found = []
    for number, messages in groupby(completed, attrgetter("turn")):
        texts = {role: [one.text for one in group] for role, group in _by_role(list(messages)).items()}
        found.append(_Pair(number, "|".join(texts.get("user", ())), "|".join(texts.get("assistant", ()))))
    return found


def _by_role(messages: Sequence[Kept]) -> dict[str, list[Kept]]:
    roles = Counter(one.role for one in messages)
    return {role: [one for one in messages if one.role == role] for role in roles}
