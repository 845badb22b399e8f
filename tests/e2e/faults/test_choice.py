"""Who is asked: hedging, places at a target, sessions that stay with theirs."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import pytest

from parley.v1.receipt_pb2 import Receipt
from tests.e2e.faults.calling import GRPC, REST
from tests.e2e.faults.misbehaving import SILENT, TEXT, Script, late, refusal, says
from tests.e2e.faults.targets import Targets
from tests.upstream import Answer, Gate, Received

both_ways = pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "whole"])
by_both = pytest.mark.parametrize("by", [REST, GRPC])


def _tried(receipt: Receipt | None) -> list[tuple[str, str, str]]:
    assert receipt is not None
    return [(one.target_model.rpartition("/")[2], one.kind, one.outcome) for one in receipt.attempts]


@by_both
def test_a_second_target_is_asked_when_the_first_token_is_late(targets: Targets, by: str) -> None:
    """The faster one answers, and the connection to the other is closed within a second."""
    targets.does("hedged/one", late(Gate()))
    outcome = targets.call("hedged", by)
    assert TEXT == outcome.texts[0]
    assert targets.seen("hedged/one")[0].closed.wait(1.0)
    assert [("one", "first", "cancelled"), ("two", "hedge", "completed")] == _tried(outcome.receipt)


@by_both
def test_a_hedge_that_fails_leaves_the_first_target_to_answer(targets: Targets, by: str) -> None:
    """Its failure is no failure of the call."""
    gate = Gate()
    targets.does("hedged/one", late(gate))
    targets.does("hedged/two", _then(gate.set, refusal(401)))
    outcome = targets.call("hedged", by)
    assert TEXT == outcome.texts[0]
    assert [("one", "first", "completed"), ("two", "hedge", "failed")] == _tried(outcome.receipt)


def _then(action: Callable[[], None], script: Script) -> Script:
    def scripted(request: Received) -> Answer:
        action()
        return script(request)

    return scripted


def test_calls_that_wait_are_evidence(targets: Targets) -> None:
    """A target that falls silent is left alone as soon as five calls are late, long before any of them has ended."""
    for number in range(6):
        targets.call("watched", REST, is_stream=number % 2 == 0)
    targets.does("watched/one", SILENT)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(targets.call, "watched", GRPC, is_stream=number % 2 == 0) for number in range(8)]
        assert {TEXT} == {call.result().texts[0] for call in calls}
    assert {("two", "hedge", "completed")} == {_tried(call.result().receipt)[1] for call in calls}
    assert [("two", "first", "completed")] == _tried(targets.call("watched", GRPC).receipt)


def test_a_target_that_is_in_time_is_not_hedged(targets: Targets) -> None:
    """The second one is never asked."""
    outcome = targets.call("calm", GRPC)
    assert [("one", "first", "completed")] == _tried(outcome.receipt)
    assert [] == targets.seen("calm/two")


@both_ways
@by_both
def test_a_full_target_passes_calls_on(targets: Targets, by: str, is_stream: bool) -> None:
    """With one place, the second call goes to the next target, and a later one to the first again."""
    gate = Gate()
    targets.does("narrow/one", late(gate))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(targets.call, "narrow", by, is_stream=is_stream)
        targets.seen("narrow/one", 1)
        second = targets.call("narrow", by, is_stream=is_stream)
        assert [("two", "first", "completed")] == _tried(second.receipt)
        gate.set()
        assert [("one", "first", "completed")] == _tried(first.result().receipt)
    third = targets.call("narrow", by, is_stream=is_stream)
    assert [("one", "first", "completed")] == _tried(third.receipt)


@both_ways
def test_a_full_target_alone_is_busy(targets: Targets, is_stream: bool) -> None:
    """429 with the time to wait, and no request more for the target."""
    gate = Gate()
    targets.does("alone/one", late(gate))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(targets.call, "alone", GRPC, is_stream=is_stream)
        targets.seen("alone/one", 1)
        rejected = targets.call("alone", REST, is_stream=is_stream)
        assert (429, "rate_limit_exceeded", "1") == (rejected.status, rejected.reason, rejected.retry_after)
        gate.set()
        assert TEXT == first.result().texts[0]
    assert 1 == len(targets.seen("alone/one"))
    assert TEXT == targets.call("alone", REST, is_stream=is_stream).texts[0]


@both_ways
def test_a_queue_lets_calls_wait_for_a_place(targets: Targets, is_stream: bool) -> None:
    """The second call waits for the first, the third finds no room; none is lost."""
    gate = Gate()
    targets.does("queued/one", late(gate))
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(targets.call, "queued", GRPC, is_stream=is_stream) for _ in range(3)]
        targets.seen("queued/one", 1)
        wait(calls, return_when=FIRST_COMPLETED)
        assert 1 == len(targets.seen("queued/one"))
        gate.set()
        assert {None: 2, "UPSTREAM_RATE_LIMITED": 1} == Counter(call.result().reason for call in calls)


def test_a_session_stays_with_its_target(targets: Targets) -> None:
    """All of its turns go there while it is well, elsewhere when it fails, and there again."""
    asked = set()
    for _ in range(8):
        session, home = _turn(targets, None)
        assert [home, home] == [_turn(targets, session)[1] for _ in range(2)]
        asked.add(home)
    assert len(asked) > 1
    targets.does(f"spread/{home}", refusal(503))
    assert home != _turn(targets, session)[1]
    targets.does(f"spread/{home}", says())
    assert home == _turn(targets, session)[1]


def _turn(targets: Targets, session: str | None) -> tuple[str, str]:
    """Makes a turn; returns the session, and the name of the target that answered."""
    asks: dict[str, Any] = {"session_id": session} if session else {}
    outcome = targets.call("spread", GRPC, is_stream=False, **asks)
    assert outcome.session
    return outcome.session, _tried(outcome.receipt)[-1][0]
