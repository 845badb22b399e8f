"""The checker accepts a valid history, and finds every kind of violation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

import pytest

from tests.faults.checker import violations
from tests.faults.history import (
    Answer,
    Delete,
    Fork,
    History,
    Listing,
    Outcome,
    Read,
    StoredMessage,
    Turn,
    UpstreamRequest,
)

OK, UNKNOWN, NOT_FOUND = Outcome.OK, Outcome.UNKNOWN, Outcome.NOT_FOUND
END = 1000.0


def _stored(turn: int, question: str, state: str = "completed", answer: str | None = None) -> list[StoredMessage]:
    return [
        StoredMessage(turn, state, "user", question),
        StoredMessage(turn, state, "assistant", answer or f"to {question}"),
    ]


def _turn(at: float, text: str, session: str | None, made: str | None = None, key: str | None = None) -> Turn:
    answer = Answer(f"id of {text}", made or session or "", f"to {text}")
    return Turn(started=at, ended=at + 1, outcome=OK, text=text, session=session, key=key, answer=answer)


def _read(at: float, replica: int, session: str, *messages: list[StoredMessage], outcome: Outcome = OK) -> Read:
    joined = [one for turn in messages for one in turn]
    return Read(started=at, ended=at + 1, outcome=outcome, session=session, replica=replica, messages=joined)


def _request(question: str, *before: str) -> UpstreamRequest:
    return UpstreamRequest([text for one in before for text in (one, f"to {one}")], question, f"to {question}")


def _final(session: str, *messages: list[StoredMessage], outcome: Outcome = OK) -> list[Read]:
    return [_read(END, replica, session, *messages, outcome=outcome) for replica in (0, 1)]


def good() -> History:
    """A run of two sessions, a fork and a deletion, with a retry, a crash and an abandoned stream."""
    lost = Turn(started=30, ended=31, outcome=UNKNOWN, text="crashed", session="s")
    abandoned = Turn(started=40, ended=41, outcome=UNKNOWN, text="left", session="s")
    return History(
        operations=[
            _turn(10, "one", None, "s", key="k"),
            _turn(12, "one", None, "s", key="k"),
            _read(14, 1, "s", _stored(1, "one")),
            lost,
            abandoned,
            Fork(started=42, ended=43, outcome=OK, session="s", made="f", key="fork"),
            Fork(started=44, ended=45, outcome=OK, session="s", made="f", key="fork"),
            _turn(50, "two", "s"),
            _read(52, 0, "s", _stored(1, "one"), _stored(3, "left"), _stored(4, "two")),
            _turn(54, "on", "f"),
            Listing(started=56, ended=57, outcome=OK, replica=1, sessions={"s": 4, "f": 4}),
            _turn(60, "other", None, "d"),
            Delete(started=62, ended=63, outcome=OK, session="d", key="delete"),
            Delete(started=64, ended=65, outcome=OK, session="d", key="delete"),
            _read(66, 1, "d", outcome=NOT_FOUND),
        ],
        requests=[
            _request("one"),
            _request("crashed", "one"),
            _request("left", "one"),
            _request("two", "one", "left"),
            _request("on", "one", "left"),
            _request("other"),
        ],
        final=[
            *_final("s", _stored(1, "one"), _stored(2, "crashed", "incomplete"), _stored(3, "left"), _stored(4, "two")),
            *_final("f", _stored(1, "one"), _stored(3, "left"), _stored(4, "on")),
            *_final("d", outcome=NOT_FOUND),
        ],
    )


def test_a_valid_history() -> None:
    """Crashes, retries and races are no violations."""
    assert [] == violations(good())


def _with_final(session: str, *messages: list[StoredMessage], outcome: Outcome = OK) -> Callable[[History], None]:
    """Replaces the final read of a session at both replicas."""

    def change(history: History) -> None:
        history.final = [read for read in history.final if read.session != session]
        history.final += _final(session, *messages, outcome=outcome)

    return change


def _with(*operations: object) -> Callable[[History], None]:
    def change(history: History) -> None:
        history.operations += operations  # type: ignore[arg-type]

    return change


def _with_request(question: str, context: Sequence[str]) -> Callable[[History], None]:
    def change(history: History) -> None:
        history.requests = [
            replace(request, context=context) if request.question == question else request
            for request in history.requests
        ]

    return change


def _with_one_replica(history: History) -> None:
    history.final[1] = replace(history.final[1], messages=history.final[1].messages[:-2])


def _with_another_fork(history: History) -> None:
    _with(Fork(started=0, ended=inf, outcome=UNKNOWN, session="s", made="g"))(history)
    _with_final("g", ONE)(history)


ONE, CRASHED, ABANDONED, TWO = (
    _stored(1, "one"),
    _stored(2, "crashed", "incomplete"),
    _stored(3, "left"),
    _stored(4, "two"),
)

BROKEN: dict[str, tuple[Callable[[History], None], str]] = {
    "an acknowledged turn is lost": (
        _with_final("s", ONE, CRASHED, ABANDONED),
        "was acknowledged with 'to two', stored as",
    ),
    "an acknowledged turn is incomplete": (
        _with_final("s", ONE, CRASHED, ABANDONED, _stored(4, "two", "incomplete")),
        "stored as []",
    ),
    "a turn is stored twice": (
        _with_final("s", ONE, CRASHED, ABANDONED, TWO, _stored(5, "two")),
        "'two' is stored 2 times",
    ),
    "a retried turn is in two sessions": (
        _with_final("t", ONE),
        "'one' is stored 2 times, in ['s', 't']",
    ),
    "another answer is stored": (_with_final("s", _stored(1, "one", answer="x"), CRASHED, ABANDONED, TWO), "stored as"),
    "a session is lost": (_with_final("s", outcome=NOT_FOUND), "session s is lost"),
    "a number is left out": (
        _with_final("s", ONE, CRASHED, ABANDONED, _stored(5, "two")),
        "not contiguous: [1, 2, 3, 5]",
    ),
    "numbers are out of order": (_with_final("s", ONE, ABANDONED, CRASHED, TWO), "out of order"),
    "turns are out of order": (
        _with_final("s", _stored(1, "two"), CRASHED, ABANDONED, _stored(4, "one")),
        "'one' was acknowledged before 'two'",
    ),
    "a turn never ends": (
        _with_final("s", ONE, CRASHED, ABANDONED, TWO, _stored(5, "x", "in_progress")),
        "in progress for ever",
    ),
    "the replicas differ": (_with_one_replica, "session s: the replicas show different"),
    "a turn that no client sent": (
        _with_final("s", ONE, CRASHED, ABANDONED, TWO, _stored(5, "x")),
        "no client sent 'x'",
    ),
    "a turn of another session": (
        _with_final("s", ONE, CRASHED, ABANDONED, TWO, _stored(5, "other")),
        "no client sent 'other'",
    ),
    "an answer that the upstream did not send": (
        _with_final("s", ONE, CRASHED, _stored(3, "left", answer="x"), TWO),
        "turn 3 is not what the upstream answered",
    ),
    "a turn is missing upstream": (
        _with_request("two", ["one", "to one"]),
        "the upstream received 'two' after ['one', 'to one'], not",
    ),
    "an incomplete turn is sent upstream": (
        _with_request("two", ["one", "to one", "crashed", "to crashed", "left", "to left"]),
        "the upstream received 'two' after",
    ),
    "a turn is sent upstream twice": (
        _with_request("other", ["one", "to one", "one", "to one"]),
        "which are not complete turns, each once",
    ),
    "half a turn is sent upstream": (_with_request("other", ["one"]), "not complete turns"),
    "an own write is not read": (_with(_read(70, 1, "s", ONE, ABANDONED)), "replica 1: a read of s misses 'two'"),
    "a read goes back in time": (
        _with(_read(46, 0, "s", ONE, ABANDONED), _read(48, 1, "s", ONE)),
        "replica 1: a read of s misses {Pair(number=3, question='left'",
    ),
    "a read shows half a turn": (
        _with(_read(70, 1, "s", ONE, CRASHED, ABANDONED, TWO, _stored(5, "x")[1:])),
        "replica 1: a read of s shows half of turn 5",
    ),
    "a read shows a turn in two states": (
        _with(
            _read(70, 1, "s", ONE, ABANDONED, TWO, [StoredMessage(5, "in_progress", "user", "x"), *_stored(5, "x")[1:]])
        ),
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
    "a deleted session is read": (_with(_read(70, 0, "d", _stored(1, "other"))), "was deleted, and read finds it"),
    "a deleted session is stored": (_with_final("d", _stored(1, "other")), "was deleted, and read finds it"),
    "a deleted session is listed": (
        _with(Listing(started=70, ended=71, outcome=OK, replica=0, sessions={"s": 4, "f": 4, "d": 1})),
        "was deleted, and listing finds it",
    ),
    "a deleted session is continued": (_with(_turn(70, "again", "d")), "was deleted, and turn finds it"),
    "a deleted session is forked": (
        _with(Fork(started=70, ended=71, outcome=OK, session="d", made="g")),
        "was deleted, and fork finds it",
    ),
    "a session is deleted twice": (
        _with(Delete(started=70, ended=71, outcome=OK, session="d")),
        "was deleted, and delete finds it",
    ),
    "a fork misses a turn": (_with_final("f", ABANDONED, _stored(4, "on")), "fork f misses 'one'"),
    "a fork has a gap": (_with_final("f", _stored(3, "left"), _stored(4, "on")), "fork f has"),
    "a fork has an incomplete turn": (
        _with_final("f", ONE, _stored(2, "crashed"), ABANDONED, _stored(4, "on")),
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
        "session s has 2 forks, and 1 were requested",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_violation_is_found(name: str) -> None:
    """Each change to the valid history violates one guarantee, which the checker names."""
    change, words = BROKEN[name]
    history = good()
    change(history)
    found = violations(history)
    assert [sentence for sentence in found if words in sentence], found


def test_an_unknown_deletion_may_have_taken_effect() -> None:
    """After a deletion with an unknown outcome, the session may exist or not."""
    for messages in ((ONE, CRASHED, ABANDONED, TWO), ()):
        history = good()
        history.operations.append(Delete(started=70, ended=71, outcome=UNKNOWN, session="s"))
        _with_final("s", *messages, outcome=OK if messages else NOT_FOUND)(history)
        assert [] == violations(history)
