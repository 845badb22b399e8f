"""A simulation of a hundred thousand failures through breakers, budgets and retry states, with a virtual clock.

Many calls run concurrently at targets that are healthy, failing or down for a while; a heap holds the next events. A
call drives a retry state as `Execution` does, without waiting. The invariants are checked from the attempts that start.
"""

import heapq
import itertools
import os
import random
from collections.abc import Callable, Generator

from structlog.testing import capture_logs

from parley.config import Retries
from parley.core.errors import DeadlineExceeded, ParleyError
from parley.core.routing.attempts import Attempt
from parley.core.routing.budget import MAX_BALANCE, MIN_RETRIES_PER_SECOND, RetryBudget
from parley.core.routing.call_origin import PLAIN_ORIGIN
from parley.core.routing.probe_schedule import INITIAL_INTERVAL, MAX_INTERVAL
from parley.core.routing.retry_state import RetryState
from parley.core.routing.targets import Candidate
from parley.core.usage.attempts import AttemptKind
from tests.unit.routing.routes import CALL, FAILURES, Clock, candidates

FAILURE_COUNT = int(os.environ.get("SIMULATED_FAILURES", "100000"))
ATTEMPTS = 5
SHARE = 0.01
RARELY = 0.001  # how many of the failures that could keep calls away from their target for long do so
FINAL = {"policy", "rejected"}
REPEATED = {"unavailable", "unavailable twice", "busy", "busy for 2 s"}
HELD = {"busy for 10 s": 10.0, "busy for 60 s": 60.0, "away for 60 s": 60.0}
COUNTED = REPEATED - {"busy for 2 s"} | {"timeout", "broken", "unreadable", "misconfigured", "quota"}
SILENT = {"left", "busy for 2 s", "unsupported"} | HELD.keys()
KINDS = FAILURES.keys() - {"500", "404", "unrecognized", "rejected perhaps", "quota perhaps", "oversized"}
"""Without the suspect failures, which are in test_retry_state."""
STATES = (["fine"] * 45 + sorted(KINDS), ["fine"] * 27 + sorted(KINDS), [*sorted(KINDS), "unavailable", "timeout"])
"""The states of a target: the result of a call is drawn from the failures of the current state."""


class Watch:
    """An observed target, which verifies each state change of its breaker."""

    def __init__(self, candidate: Candidate, clock: Clock) -> None:
        self.breakers = candidate.target.breakers
        self.clock = clock
        self.epoch = 0  # counts the changes between closed and open
        self.due: float | None = None  # when a probe may be made; None while closed
        self.pause = INITIAL_INTERVAL
        self.probe: Attempt | None = None
        self.ends: list[tuple[float, bool]] = []  # of calls begun while it was closed as it is now
        self.epochs: dict[Attempt, int] = {}
        self.probes = 0
        self.lease = 0.0  # the end of its hold

    def begins(self, attempt: Attempt) -> None:
        """Checks that an attempt may start."""
        assert self.clock.now >= self.lease - 1e-6, "a call before the time that the target has named"
        self.epochs[attempt] = self.epoch
        if self.due is not None:
            assert self.clock.now >= self.due - 1e-6, "a call passed an open breaker"
            assert self.probe is None, "two probes at a time"
            self.probe = attempt
            self.probes += 1

    def ends_with(self, attempt: Attempt, kind: str) -> None:
        """Checks the effect of a result on the breaker."""
        begun_in = self.epochs.pop(attempt)
        self.lease = max(self.lease, self.clock.now + HELD.get(kind, 0.0))
        if attempt is self.probe:
            self.probe_ends(kind)
        elif self.due is None and begun_in == self.epoch:
            self.closed_call_ends(kind)
        assert (self.due is None) == self.breakers.is_closed(PLAIN_ORIGIN)

    def probe_ends(self, kind: str) -> None:
        """After a probe the breaker is closed, or open for the due interval."""
        self.probe = None
        if kind in COUNTED or kind in SILENT:
            self.pause = min(2 * self.pause, MAX_INTERVAL) if kind in COUNTED else self.pause
            self.due = self.clock.now + self.pause
        else:
            self.due, self.ends, self.epoch = None, [], self.epoch + 1

    def closed_call_ends(self, kind: str) -> None:
        """Only five failures in a row, or ten of twenty results within thirty seconds, open the breaker."""
        if kind in SILENT:
            return
        self.ends = [*self.ends[-19:], (self.clock.now, kind in COUNTED)]
        in_a_row = len(self.ends) >= 5 and all(failed for _, failed in self.ends[-5:])
        recent = len(self.ends) == 20 and self.ends[0][0] >= self.clock.now - 30
        if kind in COUNTED and (in_a_row or (recent and sum(failed for _, failed in self.ends) >= 10)):
            self.pause, self.epoch = INITIAL_INTERVAL, self.epoch + 1
            self.due = self.clock.now + self.pause


class World:
    """The targets, the calls in progress and the scheduled events."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.start = self.clock.now
        own, backup = candidates(self.clock, "a", "b", "c"), candidates(self.clock, "d", "e", model_id="backup")
        self.waiting = [*own, *backup]
        self.watches = {one.target.name: Watch(one, self.clock) for one in self.waiting}
        self.budget = RetryBudget(SHARE, self.clock)
        self.states = dict.fromkeys("abcde", STATES[0])
        self.due: list[tuple[float, int, Callable[[], None]]] = []
        self.number = itertools.count()
        self.failures = self.calls = self.repeats = self.answered = 0
        self.tight = 0.0  # how much of the budget was used at the most

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Schedules an event in so many seconds."""
        heapq.heappush(self.due, (self.clock.now + seconds, next(self.number), act))

    def run(self, failures: int) -> None:
        """Starts calls until the failures are reached, then lets the calls end."""
        self.at(0, lambda: self.comes(failures))
        self.at(0, lambda: self.turns(failures))
        while self.due:
            self.clock.now, _, act = heapq.heappop(self.due)
            act()

    def comes(self, failures: int) -> None:
        """Starts a call and schedules the next one."""
        self.calls += 1
        self.go_on(self.call())
        if self.failures < failures:
            self.at(self.random.expovariate(80), lambda: self.comes(failures))

    def turns(self, failures: int) -> None:
        """Changes the state of a target; sometimes all targets fail."""
        self.states[self.random.choice("abcde")] = self.random.choice(STATES)
        if self.failures < failures:
            self.at(self.random.expovariate(1 / 20), lambda: self.turns(failures))

    def go_on(self, call: Generator[float, None, None]) -> None:
        """Runs a call until it waits again."""
        seconds = next(call, None)
        if seconds is not None:
            self.at(seconds, lambda: self.go_on(call))

    def call(self) -> Generator[float, None, None]:
        """Runs one call; yields how many seconds it waits."""
        deadline = self.clock.now + self.random.choice([0.05, 0.5, 2, 10, 1000])
        waiting = self.random.sample(self.waiting[:3], 3) + self.waiting[3:]
        retry_state = RetryState(
            "m",
            waiting,
            Retries(attempts=ATTEMPTS, share=SHARE),
            self.budget,
            deadline=deadline,
            clock=self.clock,
            jitter=self.random.random,
        )
        kinds: list[tuple[str, str]] = []
        try:
            yield from self.tries(retry_state, deadline, kinds)
        except ParleyError as error:
            self.check_error(error, retry_state, kinds, deadline)
        self.check_attempts(kinds)

    def tries(
        self, retry_state: RetryState, deadline: float, kinds: list[tuple[str, str]]
    ) -> Generator[float, None, None]:
        """Does what `Execution` does: tries a target, waits, retries or tries the next one."""
        again: Attempt | None = None
        while True:
            candidate = again.candidate if again else retry_state.next_candidate()
            attempt = retry_state.start_attempt(
                candidate, CALL, AttemptKind.RETRY if again else AttemptKind.FIRST, again
            )
            again = None
            if attempt is None:
                continue
            name = candidate.target.name
            assert self.clock.now < deadline, "begun past the deadline"
            self.watches[name].begins(attempt)
            yield self.random.expovariate(5)
            kind = self.random.choice(self.states[name])
            if kind in HELD and self.random.random() > RARELY:
                kind = "busy"
            if self.random.random() < 0.01:
                retry_state.cancelled(attempt)
                self.watches[name].ends_with(attempt, "left")
                kinds.append((name, "left"))
                return
            kinds.append((name, kind))
            if kind == "fine":
                retry_state.completed(attempt)
                self.watches[name].ends_with(attempt, kind)
                self.answered += 1
                return
            self.failures += 1
            try:
                pause = retry_state.failed(attempt, FAILURES[kind]())
            finally:
                self.watches[name].ends_with(attempt, kind)
            if pause is not None:
                assert kind in REPEATED, f"{kind} is repeated"
                assert self.clock.now + pause < deadline, "a pause beyond the deadline"
                self.repeats += 1
                most = MAX_BALANCE + MIN_RETRIES_PER_SECOND * (self.clock.now - self.start) + SHARE * self.calls
                assert self.repeats <= most, "more repetitions than the budget has"
                self.tight = max(self.tight, self.repeats / most)
                again = attempt
                yield pause

    def check_attempts(self, kinds: list[tuple[str, str]]) -> None:
        """No target is tried more often than its failures allow, and no call more often than configured."""
        assert sum(kind != "unsupported" for _, kind in kinds) <= ATTEMPTS
        for name in {name for name, _ in kinds}:
            failed = [kind for one, kind in kinds[:-1] if one == name]
            upstream = sum(one == name for one, _ in kinds)
            assert upstream <= 1 + 2 + (failed.count("busy for 2 s") > 0)
        assert all(kind not in FINAL for _, kind in kinds[:-1]), "called after a final failure"

    def check_error(
        self, error: ParleyError, retry_state: RetryState, kinds: list[tuple[str, str]], deadline: float
    ) -> None:
        """No call fails while an admitting candidate has not been tried and an attempt is left."""
        if isinstance(error, DeadlineExceeded):
            assert self.clock.now >= deadline
            return
        too_long = any(kind == "too long" for _, kind in kinds)
        if len(kinds) < ATTEMPTS and not too_long and (not kinds or kinds[-1][1] not in FINAL):
            upstream = {name for name, _ in kinds}
            left = [one for one in self.waiting if one.target.name not in upstream and one.target.admits()]
            assert not left or not retry_state.has_remaining


def test_a_hundred_thousand_failures() -> None:
    """Breakers, budgets and deadlines hold at every failure, and many calls are answered all the same."""
    world = World(seed=20261122)
    with capture_logs():
        world.run(FAILURE_COUNT)
    assert world.failures >= FAILURE_COUNT
    assert world.answered > world.calls / 3
    assert all(watch.probes > 20 for watch in world.watches.values())
    assert world.repeats > 1000
    assert world.tight > 0.9, "the budget was never near its end"
    assert all(watch.probe is None and not watch.epochs for watch in world.watches.values())
