"""The circuit breaker's states, on a clock that is set."""

import os
from pathlib import Path

import pytest

from parley.backends.breaker_state import shared_states
from parley.core.routing.breaker import Breaker
from parley.core.routing.probe_schedule import InMemoryState, ProbeSchedule, ProbeTimes
from tests.unit.routing.routes import Clock


@pytest.fixture
def clock() -> Clock:
    """The breaker's clock."""
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    """A breaker that is closed."""
    return Breaker(clock)


def _call(breaker: Breaker, *, fails: bool) -> bool:
    """Makes a call and ends it at once; False where it was not let through."""
    permit = breaker.try_acquire_permit()
    if permit is None:
        return False
    (breaker.record_failure if fails else breaker.record_success)(permit)
    return True


def _opened(breaker: Breaker) -> Breaker:
    while breaker.is_closed:
        assert _call(breaker, fails=True)
    return breaker


def test_five_failures_in_a_row_open_it(breaker: Breaker) -> None:
    """The fifth one does, and a success in between begins the count anew."""
    for fails in (True, True, True, True, False, True, True, True, True):
        assert _call(breaker, fails=fails)
    assert breaker.is_closed
    assert _call(breaker, fails=True)
    assert not breaker.is_closed
    assert not _call(breaker, fails=True)


def test_half_of_twenty_within_thirty_seconds_open_it(breaker: Breaker, clock: Clock) -> None:
    """Ten failures among the latest twenty, though never two in a row."""
    for number in range(19):
        clock.now += 1
        assert _call(breaker, fails=number % 2 == 0)
    assert breaker.is_closed
    assert _call(breaker, fails=True)
    assert not breaker.is_closed


def test_half_of_twenty_in_a_longer_time_leave_it_closed(breaker: Breaker, clock: Clock) -> None:
    """What lies more than thirty seconds back does not count."""
    for number in range(200):
        clock.now += 1.6
        assert _call(breaker, fails=number % 2 == 0)
    assert breaker.is_closed


def test_nothing_is_let_through_for_ten_seconds_then_one_probe(breaker: Breaker, clock: Clock) -> None:
    """A second call does not pass while the probe is under way."""
    _opened(breaker)
    clock.now += 9.99
    assert breaker.try_acquire_permit() is None
    clock.now += 0.01
    assert breaker.admits()
    assert breaker.try_acquire_permit() is not None
    assert not breaker.admits()
    assert breaker.try_acquire_permit() is None


def test_the_pause_grows_with_each_probe_that_fails_up_to_15_seconds(breaker: Breaker, clock: Clock) -> None:
    """10, 15, 15 seconds, so that a target is used again soon after its return; after a success it begins with 10."""
    _opened(breaker)
    for pause in (10, 15, 15, 15):
        assert pause == breaker.remaining_delay()
        clock.now += pause
        assert _call(breaker, fails=True)
    clock.now += 15
    assert _call(breaker, fails=False)
    assert breaker.is_closed
    _opened(breaker)
    assert 10 == breaker.remaining_delay()


def test_a_probe_that_begins_to_answer_closes_it(breaker: Breaker, clock: Clock) -> None:
    """A stream may take minutes: its first token is enough. That it breaks off later is one failure of a new count."""
    _opened(breaker)
    clock.now += 10
    permit = breaker.try_acquire_permit()
    assert permit is not None
    permit = breaker.record_first_token(permit)
    assert breaker.is_closed
    breaker.record_failure(permit)
    assert breaker.is_closed
    for _ in range(4):
        assert _call(breaker, fails=True)
    assert not breaker.is_closed


def test_a_probe_whose_caller_leaves_is_followed_by_the_same_pause(breaker: Breaker, clock: Clock) -> None:
    """It said nothing; the next probe waits as long as this one did."""
    _opened(breaker)
    clock.now += 10
    permit = breaker.try_acquire_permit()
    assert permit is not None
    breaker.release(permit)
    assert 10 == breaker.remaining_delay()
    assert not breaker.admits()


def test_calls_of_an_earlier_time_are_not_heard(breaker: Breaker, clock: Clock) -> None:
    """Calls that began before it opened neither close it, nor fail its probe, nor count after it has closed."""
    early = [breaker.try_acquire_permit() for _ in range(10)]
    _opened(breaker)
    for permit in early[:5]:
        assert permit is not None
        breaker.record_success(permit)
    assert not breaker.is_closed
    clock.now += 10
    probe = breaker.try_acquire_permit()
    assert probe is not None
    for permit in early[5:]:
        assert permit is not None
        breaker.record_failure(permit)
    assert breaker.try_acquire_permit() is None
    breaker.record_success(probe)
    assert breaker.is_closed


def test_a_health_check_may_end_the_pause(breaker: Breaker) -> None:
    """One probe is let through at once then, and decides."""
    _opened(breaker)
    breaker.probe_now()
    assert _call(breaker, fails=True)
    assert 15 == breaker.remaining_delay()


@pytest.mark.parametrize("shared", [False, True], ids=["in memory", "in a file"])
def test_workers_share_the_pause(clock: Clock, tmp_path: Path, shared: bool) -> None:
    """One of them probes for all, and what it finds holds for all."""
    memory, cells = InMemoryState(), shared_states(tmp_path)
    one, other = (Breaker(clock, ProbeSchedule(cells("a/b") if shared else memory)) for _ in range(2))
    _opened(one)
    clock.now += 3
    _opened(other)
    for pause in (7, 15, 15):  # the first one's pause counts, and grows for both
        clock.now += pause
        probe = one.try_acquire_permit()
        assert probe is not None
        assert other.try_acquire_permit() is None
        one.record_failure(probe)
        assert (one.remaining_delay(), False) == (other.remaining_delay(), other.admits())
    clock.now += 15
    assert _call(other, fails=False)
    assert one.is_closed
    assert other.is_closed
    _opened(one)
    assert other.is_closed
    assert 10 == one.remaining_delay()


def test_a_worker_that_dies_with_the_probe_leaves_it_to_others(clock: Clock, tmp_path: Path) -> None:
    """After another pause."""
    cells = shared_states(tmp_path)
    one, other = (Breaker(clock, ProbeSchedule(cells("a/b"))) for _ in range(2))
    _opened(one)
    _opened(other)
    clock.now += 10
    assert one.try_acquire_permit() is not None
    clock.now += 9.9
    assert other.try_acquire_permit() is None
    clock.now += 0.1
    assert other.try_acquire_permit() is not None


def test_a_pause_of_an_earlier_boot_does_not_count(clock: Clock, tmp_path: Path) -> None:
    """The file may outlive the machine's clock, which begins anew."""
    cell = shared_states(tmp_path)("a/b")
    cell.update(lambda _: ProbeTimes(clock.now + 5000, 15, clock.now - 1))
    assert 10 == _opened(Breaker(clock, ProbeSchedule(cell))).remaining_delay()


def test_targets_have_a_cell_each_that_every_worker_finds(tmp_path: Path) -> None:
    """By its name, whatever characters it has."""
    cells = shared_states(tmp_path)
    cells("a/../b").update(lambda _: ProbeTimes(1, 2, 3, 4, 1))
    assert (1, 2, 3, 4, 1) == shared_states(tmp_path)("a/../b").read()
    assert ProbeTimes() == cells("a/b").read()


def test_a_file_that_is_emptied_or_gone_breaks_nothing(clock: Clock, tmp_path: Path) -> None:
    """Its pause is forgotten, and the next one is kept again."""
    breaker = Breaker(clock, ProbeSchedule(shared_states(tmp_path)("a/b")))
    _opened(breaker)
    (file,) = tmp_path.iterdir()
    os.truncate(file, 0)
    assert _call(breaker, fails=True)
    assert 15 == breaker.remaining_delay()
    file.unlink()
    assert 15 == breaker.remaining_delay()


def test_calls_that_wait_too_long_open_it_before_they_end(breaker: Breaker) -> None:
    """Each counts once, as a failure; that it is open for no other reason is told."""
    permits = [breaker.try_acquire_permit() or 0 for _ in range(6)]
    for permit in permits[:5]:
        assert breaker.is_closed
        breaker.record_late(permit)
    assert (False, True) == (breaker.is_closed, breaker.only_late)
    breaker.record_late(permits[5])
    assert 10 == breaker.remaining_delay()


def test_a_first_token_takes_the_suspicion_back(breaker: Breaker) -> None:
    """Neither the count in a row nor that of the latest twenty keeps it."""
    for _ in range(30):
        permit = breaker.try_acquire_permit()
        assert permit is not None
        breaker.record_late(permit)
        breaker.clear_late(permit)
    assert breaker.is_closed


def test_a_first_token_after_it_opened_lets_a_probe_be_made_at_once(breaker: Breaker) -> None:
    """Where it was open for suspicions only."""
    permits = [breaker.try_acquire_permit() or 0 for _ in range(5)]
    for permit in permits:
        breaker.record_late(permit)
    breaker.clear_late(permits[0])
    assert breaker.admits()
    assert _call(breaker, fails=True)
    assert (15, False) == (breaker.remaining_delay(), breaker.only_late)
    breaker.clear_late(permits[1])
    assert not breaker.admits()


def test_failures_among_suspicions_are_a_reason_of_their_own(breaker: Breaker) -> None:
    """A call that has nowhere else to go may be made at a target that is slow, not at one that fails."""
    for _ in range(4):
        breaker.record_late(breaker.try_acquire_permit() or 0)
    assert _call(breaker, fails=True)
    assert (False, False) == (breaker.is_closed, breaker.only_late)


def test_a_probe_that_waits_too_long_has_failed(breaker: Breaker, clock: Clock) -> None:
    """The next one may be made after the pause, while the first still waits."""
    _opened(breaker)
    clock.now += 10
    breaker.record_late(breaker.try_acquire_permit() or 0)
    assert (15, False) == (breaker.remaining_delay(), breaker.only_late)
