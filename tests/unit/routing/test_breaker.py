"""Tests of the states of the circuit breaker, with a settable clock."""

import os
from pathlib import Path

import pytest

from parley.backends.breaker_state import shared_states
from parley.core.routing.breaker import Breaker
from parley.core.routing.probe_schedule import InMemoryState, ProbeSchedule, ProbeTimes
from tests.unit.routing.routes import Clock


@pytest.fixture
def clock() -> Clock:
    """The clock of the breaker."""
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    """A closed breaker."""
    return Breaker(clock)


def _call(breaker: Breaker, *, fails: bool) -> bool:
    """Makes a call that ends immediately; returns whether it was admitted."""
    permit = breaker.try_acquire_permit()
    if permit is None:
        return False
    (breaker.record_failure if fails else breaker.record_success)(permit)
    return True


def _opened(breaker: Breaker) -> Breaker:
    while breaker.is_closed:
        assert _call(breaker, fails=True)
    return breaker


def test_five_failures_in_a_row_open_the_breaker(breaker: Breaker) -> None:
    """The fifth failure opens the breaker; a success in between restarts the count."""
    for fails in (True, True, True, True, False, True, True, True, True):
        assert _call(breaker, fails=fails)
    assert breaker.is_closed
    assert _call(breaker, fails=True)
    assert not breaker.is_closed
    assert not _call(breaker, fails=True)


def test_half_of_twenty_results_within_thirty_seconds_open_the_breaker(breaker: Breaker, clock: Clock) -> None:
    """Ten failures among the latest twenty results open the breaker, even if no two are consecutive."""
    for number in range(19):
        clock.now += 1
        assert _call(breaker, fails=number % 2 == 0)
    assert breaker.is_closed
    assert _call(breaker, fails=True)
    assert not breaker.is_closed


def test_half_of_twenty_results_in_a_longer_time_leave_the_breaker_closed(breaker: Breaker, clock: Clock) -> None:
    """Results older than thirty seconds do not count."""
    for number in range(200):
        clock.now += 1.6
        assert _call(breaker, fails=number % 2 == 0)
    assert breaker.is_closed


def test_an_open_breaker_admits_nothing_for_ten_seconds_and_then_one_probe(breaker: Breaker, clock: Clock) -> None:
    """A second call is rejected while the probe is in progress."""
    _opened(breaker)
    clock.now += 9.99
    assert breaker.try_acquire_permit() is None
    clock.now += 0.01
    assert breaker.admits()
    assert breaker.try_acquire_permit() is not None
    assert not breaker.admits()
    assert breaker.try_acquire_permit() is None


def test_the_interval_doubles_with_each_failed_probe_up_to_15_seconds(breaker: Breaker, clock: Clock) -> None:
    """The intervals are 10, 15 and 15 seconds; after a success the first one is 10 seconds again."""
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


def test_the_first_token_of_a_probe_closes_the_breaker(breaker: Breaker, clock: Clock) -> None:
    """The probe succeeds with its first token, as a stream may take minutes. A later break is one failure."""
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


def test_a_cancelled_probe_is_followed_by_the_same_interval(breaker: Breaker, clock: Clock) -> None:
    """A cancelled probe has no result, so the interval neither grows nor restarts at ten seconds."""
    _opened(breaker)
    clock.now += 10
    permit = breaker.try_acquire_permit()
    assert permit is not None
    breaker.release(permit)
    assert 10 == breaker.remaining_delay()
    assert not breaker.admits()


def test_results_of_permits_from_an_earlier_state_are_ignored(breaker: Breaker, clock: Clock) -> None:
    """Calls from before the breaker opened neither close it, nor fail its probe, nor count after it has closed."""
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


def test_a_health_check_may_end_the_interval(breaker: Breaker) -> None:
    """After a successful health check one probe is admitted, and its result decides."""
    _opened(breaker)
    breaker.probe_now()
    assert _call(breaker, fails=True)
    assert 15 == breaker.remaining_delay()


@pytest.mark.parametrize("shared", [False, True], ids=["in memory", "in a file"])
def test_workers_share_the_probe_schedule(clock: Clock, tmp_path: Path, shared: bool) -> None:
    """One worker probes for all, and its result applies to all."""
    memory, cells = InMemoryState(), shared_states(tmp_path)
    one, other = (Breaker(clock, ProbeSchedule(cells("a/b") if shared else memory)) for _ in range(2))
    _opened(one)
    clock.now += 3
    assert _call(other, fails=True)
    assert not other.is_closed
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


def _pair(clock: Clock) -> tuple[Breaker, Breaker]:
    memory = InMemoryState()
    return Breaker(clock, ProbeSchedule(memory)), Breaker(clock, ProbeSchedule(memory))


def test_an_open_breaker_of_another_worker_is_no_reason_to_reject_calls(clock: Clock) -> None:
    """The calls of a worker that succeed go on; since they do, its failures count as if it were alone."""
    one, other = _pair(clock)
    _opened(one)
    clock.now += 1
    assert _call(other, fails=False)
    for _ in range(4):
        assert _call(other, fails=True)
    assert other.is_closed
    assert _call(other, fails=True)
    assert not other.is_closed


def test_a_success_before_the_other_worker_saw_failures_does_not_count(clock: Clock) -> None:
    """One failure opens the breaker, because it is later than the opening of the other one."""
    one, other = _pair(clock)
    assert _call(other, fails=False)
    clock.now += 1
    _opened(one)
    assert _call(other, fails=True)
    assert (False, 10) == (other.is_closed, other.remaining_delay())


def test_the_breaker_of_a_worker_that_has_ended_shows_nothing_after_a_minute(clock: Clock) -> None:
    """An open breaker makes a probe every 15 s while there are calls; without one, its state is not known."""
    one, other = _pair(clock)
    _opened(one)
    clock.now += 10 + 60
    assert _call(other, fails=True)
    assert other.is_closed


def test_late_first_tokens_are_no_sign_for_other_workers(clock: Clock) -> None:
    """Neither a breaker that is open for late tokens, nor a late token beside a breaker that is open for failures."""
    one, other = _pair(clock)
    for permit in [one.try_acquire_permit() or 0 for _ in range(5)]:
        one.record_late(permit)
    assert (False, True) == (one.is_closed, _call(other, fails=True))
    assert other.is_closed
    one, other = _pair(clock)
    _opened(one)
    other.record_late(other.try_acquire_permit() or 0)
    assert other.is_closed


def test_a_worker_that_dies_during_the_probe_leaves_the_next_probe_to_others(clock: Clock, tmp_path: Path) -> None:
    """The next probe is due after another interval."""
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


def test_an_interval_of_an_earlier_boot_does_not_count(clock: Clock, tmp_path: Path) -> None:
    """The file may outlive the clock of the machine, which restarts at boot."""
    cell = shared_states(tmp_path)("a/b")
    cell.update(lambda _: ProbeTimes(clock.now + 5000, 15, clock.now - 1))
    assert 10 == _opened(Breaker(clock, ProbeSchedule(cell))).remaining_delay()


def test_each_target_has_a_shared_state_that_every_worker_finds(tmp_path: Path) -> None:
    """The state is found by the name of the target, whatever characters it contains."""
    cells = shared_states(tmp_path)
    cells("a/../b").update(lambda _: ProbeTimes(1, 2, 3, 4, 1, 5))
    assert (1, 2, 3, 4, 1, 5) == shared_states(tmp_path)("a/../b").read()
    assert ProbeTimes() == cells("a/b").read()


def test_an_emptied_or_deleted_file_breaks_nothing(clock: Clock, tmp_path: Path) -> None:
    """The interval in the file is lost, and the next one is stored again."""
    breaker = Breaker(clock, ProbeSchedule(shared_states(tmp_path)("a/b")))
    _opened(breaker)
    (file,) = tmp_path.iterdir()
    os.truncate(file, 0)
    assert _call(breaker, fails=True)
    assert 15 == breaker.remaining_delay()
    file.unlink()
    assert 15 == breaker.remaining_delay()


def test_late_calls_open_the_breaker_before_they_end(breaker: Breaker) -> None:
    """Each late call counts once as a failure, and `only_late` is true if there is no other reason."""
    permits = [breaker.try_acquire_permit() or 0 for _ in range(6)]
    for permit in permits[:5]:
        assert breaker.is_closed
        breaker.record_late(permit)
    assert (False, True) == (breaker.is_closed, breaker.only_late)
    breaker.record_late(permits[5])
    assert 10 == breaker.remaining_delay()


def test_a_first_token_removes_the_late_failure(breaker: Breaker) -> None:
    """The late failure no longer counts as consecutive, nor among the latest twenty results."""
    for _ in range(30):
        permit = breaker.try_acquire_permit()
        assert permit is not None
        breaker.record_late(permit)
        breaker.clear_late(permit)
    assert breaker.is_closed


def test_a_first_token_of_a_late_call_makes_the_probe_due(breaker: Breaker) -> None:
    """The probe is due immediately if the breaker was open only because of late calls."""
    permits = [breaker.try_acquire_permit() or 0 for _ in range(5)]
    for permit in permits:
        breaker.record_late(permit)
    breaker.clear_late(permits[0])
    assert breaker.admits()
    assert _call(breaker, fails=True)
    assert (15, False) == (breaker.remaining_delay(), breaker.only_late)
    breaker.clear_late(permits[1])
    assert not breaker.admits()


def test_failures_among_late_calls_clear_only_late(breaker: Breaker) -> None:
    """A call without an alternative may use a slow target, but not a failing one."""
    for _ in range(4):
        breaker.record_late(breaker.try_acquire_permit() or 0)
    assert _call(breaker, fails=True)
    assert (False, False) == (breaker.is_closed, breaker.only_late)


def test_a_late_probe_has_failed(breaker: Breaker, clock: Clock) -> None:
    """The next probe is due after the interval, even while the first one still waits."""
    _opened(breaker)
    clock.now += 10
    breaker.record_late(breaker.try_acquire_permit() or 0)
    assert (15, False) == (breaker.remaining_delay(), breaker.only_late)


def test_parts_of_a_target_have_states_of_their_own(tmp_path: Path) -> None:
    """Workers share the state of each part in one file, whatever its name is; an unknown part has no times."""
    one, other = (shared_states(tmp_path)("a/b") for _ in range(2))
    one.part("x").update(lambda old: old._replace(next_probe=7.0))
    assert (7.0, 0.0) == (other.part("x").read().next_probe, other.read().next_probe)
    one.update(lambda old: old._replace(next_probe=3.0))
    assert (7.0, 3.0) == (other.part("x").read().next_probe, other.read().next_probe)
    for number in range(1000):
        one.part(f"p{number}").update(lambda old: old._replace(next_probe=old.next_probe + 1))
        assert 1.0 == other.part(f"p{number}").read().next_probe
    assert 3.0 == other.read().next_probe
    assert (tmp_path / next(tmp_path.iterdir()).name).stat().st_size <= 256 * 56
