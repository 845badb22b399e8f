"""The checker itself: a good history passes, and every kind of broken promise is found."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

import pytest

from tests.faults.checker import violations
from tests.faults.history import Answer, Delete, Fork, History, Kept, Listing, Outcome, Read, Seen, Turn

OK, UNKNOWN, NOT_FOUND = Outcome.OK, Outcome.UNKNOWN, Outcome.NOT_FOUND
END = 1000.0


def _kept(turn: int, asked: str, state: str = "completed", answered: str | None = None) -> list[Kept]:
    return [Kept(turn, state, "user", asked), Kept(turn, state, "assistant", answered or f"to {asked}")]


def _turn(at: float, text: str, session: str | None, made: str | None = None, key: str | None = None) -> Turn:
    answer = Answer(f"id of {text}", made or session or "", f"to {text}")
    return Turn(started=at, ended=at + 1, outcome=OK, text=text, session=session, key=key, answer=answer)


def _read(at: float, replica: int, session: str, *kept: list[Kept], outcome: Outcome = OK) -> Read:
    messages = [one for turn in kept for one in turn]
    return Read(started=at, ended=at + 1, outcome=outcome, session=session, replica=replica, kept=messages)


def _seen(asked: str, *before: str) -> Seen:
    return Seen([text for one in before for text in (one, f"to {one}")], asked, f"to {asked}")


def _final(session: str, *kept: list[Kept], outcome: Outcome = OK) -> list[Read]:
    return [_read(END, replica, session, *kept, outcome=outcome) for replica in (0, 1)]


def good() -> History:
    """A run of two sessions, a fork and a deletion, with a retry, a crash and a stream that was left."""
    lost = Turn(started=30, ended=31, outcome=UNKNOWN, text="crashed", session="s")
    left = Turn(started=40, ended=41, outcome=UNKNOWN, text="left", session="s")
    return History(
        operations=[
            _turn(10, "one", None, "s", key="k"),
            _turn(12, "one", None, "s", key="k"),
            _read(14, 1, "s", _kept(1, "one")),
            lost,
            left,
            Fork(started=42, ended=43, outcome=OK, session="s", made="f", key="fork"),
            Fork(started=44, ended=45, outcome=OK, session="s", made="f", key="fork"),
            _turn(50, "two", "s"),
            _read(52, 0, "s", _kept(1, "one"), _kept(3, "left"), _kept(4, "two")),
            _turn(54, "on", "f"),
            Listing(started=56, ended=57, outcome=OK, replica=1, sessions={"s": 4, "f": 4}),
            _turn(60, "other", None, "d"),
            Delete(started=62, ended=63, outcome=OK, session="d", key="delete"),
            Delete(started=64, ended=65, outcome=OK, session="d", key="delete"),
            _read(66, 1, "d", outcome=NOT_FOUND),
        ],
        seen=[
            _seen("one"),
            _seen("crashed", "one"),
            _seen("left", "one"),
            _seen("two", "one", "left"),
            _seen("on", "one", "left"),
            _seen("other"),
        ],
        final=[
            *_final("s", _kept(1, "one"), _kept(2, "crashed", "incomplete"), _kept(3, "left"), _kept(4, "two")),
            *_final("f", _kept(1, "one"), _kept(3, "left"), _kept(4, "on")),
            *_final("d", outcome=NOT_FOUND),
        ],
    )


def test_a_good_history() -> None:
    """Whatever crashes, retries and races may do is no violation."""
    assert [] == violations(good())


def _with_final(session: str, *kept: list[Kept], outcome: Outcome = OK) -> Callable[[History], None]:
    """Replaces what is kept of a session in the end, at both replicas."""

    def change(history: History) -> None:
        history.final = [read for read in history.final if read.session != session]
        history.final += _final(session, *kept, outcome=outcome)

    return change


def _with(*operations: object) -> Callable[[History], None]:
    def change(history: History) -> None:
        history.operations += operations  # type: ignore[arg-type]

    return change


def _with_seen(asked: str, context: Sequence[str]) -> Callable[[History], None]:
    def change(history: History) -> None:
        history.seen = [replace(seen, context=context) if seen.asked == asked else seen for seen in history.seen]

    return change


def _with_one_replica(history: History) -> None:
    history.final[1] = replace(history.final[1], kept=history.final[1].kept[:-2])


def _with_another_fork(history: History) -> None:
    _with(Fork(started=0, ended=inf, outcome=UNKNOWN, session="s", made="g"))(history)
    _with_final("g", ONE)(history)


ONE, CRASHED, LEFT, TWO = _kept(1, "one"), _kept(2, "crashed", "incomplete"), _kept(3, "left"), _kept(4, "two")

BROKEN: dict[str, tuple[Callable[[History], None], str]] = {
    "an acknowledged turn is lost": (
        _with_final("s", ONE, CRASHED, LEFT),
        "was acknowledged with 'to two', kept as",
    ),
    "an acknowledged turn is incomplete": (
        _with_final("s", ONE, CRASHED, LEFT, _kept(4, "two", "incomplete")),
        "kept as []",
    ),
    "a turn is kept twice": (_with_final("s", ONE, CRASHED, LEFT, TWO, _kept(5, "two")), "'two' is kept 2 times"),
    "a retried turn is in two sessions": (
        _with_final("t", ONE),
        "'one' is kept 2 times, in ['s', 't']",
    ),
    "another answer is kept": (_with_final("s", _kept(1, "one", answered="x"), CRASHED, LEFT, TWO), "kept as"),
    "a session is lost": (_with_final("s", outcome=NOT_FOUND), "session s is lost"),
    "a number is left out": (_with_final("s", ONE, CRASHED, LEFT, _kept(5, "two")), "not contiguous: [1, 2, 3, 5]"),
    "numbers are out of order": (_with_final("s", ONE, LEFT, CRASHED, TWO), "out of order"),
    "turns are out of order": (
        _with_final("s", _kept(1, "two"), CRASHED, LEFT, _kept(4, "one")),
        "'one' was acknowledged before 'two'",
    ),
    "a turn never ends": (
        _with_final("s", ONE, CRASHED, LEFT, TWO, _kept(5, "x", "in_progress")),
        "in progress for ever",
    ),
    "the replicas differ": (_with_one_replica, "session s: the replicas show different"),
    "a turn that nobody sent": (_with_final("s", ONE, CRASHED, LEFT, TWO, _kept(5, "x")), "nobody sent 'x'"),
    "a turn of another session": (_with_final("s", ONE, CRASHED, LEFT, TWO, _kept(5, "other")), "nobody sent 'other'"),
    "an answer of nobody": (
        _with_final("s", ONE, CRASHED, _kept(3, "left", answered="x"), TWO),
        "turn 3 is not what the upstream answered",
    ),
    "a turn is missing upstream": (
        _with_seen("two", ["one", "to one"]),
        "was asked 'two' after ['one', 'to one'], not",
    ),
    "an incomplete turn is sent upstream": (
        _with_seen("two", ["one", "to one", "crashed", "to crashed", "left", "to left"]),
        "was asked 'two' after",
    ),
    "a turn is sent upstream twice": (
        _with_seen("other", ["one", "to one", "one", "to one"]),
        "which are not whole turns, each once",
    ),
    "half a turn is sent upstream": (_with_seen("other", ["one"]), "not whole turns"),
    "an own write is not read": (_with(_read(70, 1, "s", ONE, LEFT)), "replica 1: a read of s misses 'two'"),
    "a read goes back in time": (
        _with(_read(46, 0, "s", ONE, LEFT), _read(48, 1, "s", ONE)),
        "replica 1: a read of s misses {_Pair(number=3, asked='left'",
    ),
    "a read shows half a turn": (
        _with(_read(70, 1, "s", ONE, CRASHED, LEFT, TWO, _kept(5, "x")[1:])),
        "replica 1: a read of s shows half of turn 5",
    ),
    "a read shows a turn in two states": (
        _with(_read(70, 1, "s", ONE, LEFT, TWO, [Kept(5, "in_progress", "user", "x"), *_kept(5, "x")[1:]])),
        "shows half of turn 5",
    ),
    "a session vanishes for a while": (_with(_read(70, 0, "s", outcome=NOT_FOUND)), "a read of s misses 'one'"),
    "a list misses a session": (
        _with(Listing(started=70, ended=71, outcome=OK, replica=0, sessions={"s": 4})),
        "a list misses turns of session f",
    ),
    "a list is old": (
        _with(Listing(started=70, ended=71, outcome=OK, replica=0, sessions={"s": 1, "f": 4})),
        "a list misses turns of session s",
    ),
    "a deleted session is read": (_with(_read(70, 0, "d", _kept(1, "other"))), "was deleted, and read finds it"),
    "a deleted session is kept": (_with_final("d", _kept(1, "other")), "was deleted, and read finds it"),
    "a deleted session is listed": (
        _with(Listing(started=70, ended=71, outcome=OK, replica=0, sessions={"s": 4, "f": 4, "d": 1})),
        "was deleted, and listing finds it",
    ),
    "a deleted session goes on": (_with(_turn(70, "again", "d")), "was deleted, and turn finds it"),
    "a deleted session is forked": (
        _with(Fork(started=70, ended=71, outcome=OK, session="d", made="g")),
        "was deleted, and fork finds it",
    ),
    "a session is deleted twice": (
        _with(Delete(started=70, ended=71, outcome=OK, session="d")),
        "was deleted, and delete finds it",
    ),
    "a fork misses a turn": (_with_final("f", LEFT, _kept(4, "on")), "fork f misses 'one'"),
    "a fork has a gap": (_with_final("f", _kept(3, "left"), _kept(4, "on")), "fork f has"),
    "a fork has an incomplete turn": (
        _with_final("f", ONE, _kept(2, "crashed"), LEFT, _kept(4, "on")),
        "fork f has",
    ),
    "a fork is lost": (_with_final("f", outcome=NOT_FOUND), "fork f is lost"),
    "a key gets another answer": (
        _with(replace(_turn(70, "one", None, "s", key="k"), answer=Answer("x", "s", "to one"))),
        "key k got 2 different answers",
    ),
    "a key gets another fork": (
        _with(Fork(started=70, ended=71, outcome=OK, session="s", made="g", key="fork")),
        "key fork got 2 different answers",
    ),
    "a key makes two forks": (
        _with_another_fork,
        "session s has 2 forks, and 1 were asked for",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_found(name: str) -> None:
    """Each change to the good history breaks one promise, and the checker says which."""
    change, words = BROKEN[name]
    history = good()
    change(history)
    found = violations(history)
    assert [sentence for sentence in found if words in sentence], found


def test_what_may_have_been_deleted_may_be_gone() -> None:
    """A deletion whose end nobody knows excuses that a session is not there, or is."""
    for kept in ((ONE, CRASHED, LEFT, TWO), ()):
        history = good()
        history.operations.append(Delete(started=70, ended=71, outcome=UNKNOWN, session="s"))
        _with_final("s", *kept, outcome=OK if kept else NOT_FOUND)(history)
        assert [] == violations(history)
