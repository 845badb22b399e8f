"""The choice of a target: hedging, slots, and session affinity."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import pytest

from parley.v1.receipt_pb2 import Receipt
from tests.e2e.faults.calling import GRPC, REST
from tests.e2e.faults.scripts import SILENT, TEXT, Script, answer_text, late, reject
from tests.e2e.faults.targets import Targets
from tests.upstream import Answer, Gate, Received

both_ways = pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "unary"])
by_both = pytest.mark.parametrize("by", [REST, GRPC])


def _tried(receipt: Receipt | None) -> list[tuple[str, str, str]]:
    assert receipt is not None
    return [(one.target_model.rpartition("/")[2], one.kind, one.outcome) for one in receipt.attempts]


@by_both
def test_a_late_first_token_is_hedged(targets: Targets, by: str) -> None:
    """The faster target answers, and the connection to the other one is closed within a second."""
    targets.set_script("hedged/one", late(Gate()))
    outcome = targets.call("hedged", by)
    assert TEXT == outcome.texts[0]
    assert targets.seen("hedged/one")[0].closed.wait(1.0)
    assert [("one", "first", "cancelled"), ("two", "hedge", "completed")] == _tried(outcome.receipt)


@by_both
def test_a_failed_hedge_leaves_the_first_target_to_answer(targets: Targets, by: str) -> None:
    """A failure of the hedge is not a failure of the call."""
    gate = Gate()
    targets.set_script("hedged/one", late(gate))
    targets.set_script("hedged/two", _then(gate.set, reject(401)))
    outcome = targets.call("hedged", by)
    assert TEXT == outcome.texts[0]
    assert [("one", "first", "completed"), ("two", "hedge", "failed")] == _tried(outcome.receipt)


def _then(action: Callable[[], None], script: Script) -> Script:
    def scripted(request: Received) -> Answer:
        action()
        return script(request)

    return scripted


def test_late_calls_open_the_breaker(targets: Targets) -> None:
    """A silent target is skipped after five late calls, before any of them has ended."""
    for number in range(6):
        targets.call("watched", REST, is_stream=number % 2 == 0)
    targets.set_script("watched/one", SILENT)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(targets.call, "watched", GRPC, is_stream=number % 2 == 0) for number in range(8)]
        assert {TEXT} == {call.result().texts[0] for call in calls}
    assert {("two", "hedge", "completed")} == {_tried(call.result().receipt)[1] for call in calls}
    assert [("two", "first", "completed")] == _tried(targets.call("watched", GRPC).receipt)


def test_a_target_that_is_in_time_is_not_hedged(targets: Targets) -> None:
    """If the first token is in time, the second target is not called."""
    outcome = targets.call("calm", GRPC)
    assert [("one", "first", "completed")] == _tried(outcome.receipt)
    assert [] == targets.seen("calm/two")


@both_ways
@by_both
def test_a_call_without_a_slot_uses_the_next_target(targets: Targets, by: str, is_stream: bool) -> None:
    """With one slot, the second call goes to the next target, and a later one to the first again."""
    gate = Gate()
    targets.set_script("narrow/one", late(gate))
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
def test_a_full_target_alone_is_rate_limited(targets: Targets, is_stream: bool) -> None:
    """Without a free slot or another target, a call is a 429 with a delay, and makes no request."""
    gate = Gate()
    targets.set_script("alone/one", late(gate))
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
def test_calls_wait_for_a_slot(targets: Targets, is_stream: bool) -> None:
    """The second call waits for the slot, and the third one is rejected, because the queue is full."""
    gate = Gate()
    targets.set_script("queued/one", late(gate))
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(targets.call, "queued", GRPC, is_stream=is_stream) for _ in range(3)]
        targets.seen("queued/one", 1)
        wait(calls, return_when=FIRST_COMPLETED)
        assert 1 == len(targets.seen("queued/one"))
        gate.set()
        assert {None: 2, "UPSTREAM_RATE_LIMITED": 1} == Counter(call.result().reason for call in calls)


def test_a_session_stays_with_its_target(targets: Targets) -> None:
    """All turns of a session use its target while it is healthy, another while it fails, and then the first again."""
    homes = set()
    for _ in range(8):
        session, home = _turn(targets, None)
        assert [home, home] == [_turn(targets, session)[1] for _ in range(2)]
        homes.add(home)
    assert len(homes) > 1
    targets.set_script(f"spread/{home}", reject(503))
    assert home != _turn(targets, session)[1]
    targets.set_script(f"spread/{home}", answer_text())
    assert home == _turn(targets, session)[1]


def _turn(targets: Targets, session: str | None) -> tuple[str, str]:
    """Makes a turn; returns the session, and the name of the target that answered."""
    fields: dict[str, Any] = {"session_id": session} if session else {}
    outcome = targets.call("spread", GRPC, is_stream=False, **fields)
    assert outcome.session
    return outcome.session, _tried(outcome.receipt)[-1][0]
