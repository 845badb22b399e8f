"""Tests of two streams that race for the first token: the loser releases everything it holds."""

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest

from parley.config import Retries
from parley.core.routing import hedging
from parley.core.routing.active_attempt import ActiveAttempt
from parley.core.routing.attempts import Attempt
from parley.core.routing.budget import RetryBudget
from parley.core.routing.retry_state import RetryState
from parley.core.usage.attempts import AttemptKind, AttemptOutcome
from tests.rpc.scripted import ScriptedBackend, chunks
from tests.unit.routing.routes import CALL, Clock, candidates


class Race:
    """A call with two targets, each of which sends one token and then nothing."""

    def __init__(self) -> None:
        clock = Clock()
        self.candidates = candidates(clock, "a", "b")
        self.retry_state = RetryState(
            "m", self.candidates, Retries(), RetryBudget(1, clock), deadline=None, clock=clock
        )
        for candidate in self.candidates:
            self._backend(candidate.target.backend).answer = lambda _: [chunks("Hi")[0], asyncio.Event()]

    async def started(self, place: int) -> ActiveAttempt:
        """Starts an attempt at one of the targets and waits for its token."""
        record = self.retry_state.start_attempt(self.candidates[place], CALL, AttemptKind.FIRST)
        attempt = ActiveAttempt(self.retry_state, cast(Attempt, record))
        await attempt.wait_first_token()
        return attempt

    def closed(self) -> list[bool]:
        """Returns for each target whether its stream is closed."""
        return [self._backend(candidate.target.backend).closed.is_set() for candidate in self.candidates]

    @staticmethod
    def _backend(backend: Any) -> ScriptedBackend:
        return cast(ScriptedBackend, backend)


@pytest.fixture
def race() -> Race:
    """A call with two targets."""
    return Race()


async def test_a_tie_has_one_winner(race: Race) -> None:
    """If two tokens arrive at the same moment, one stream wins; the other is closed and its attempt has ended."""
    start = asyncio.Event()

    async def lane(kind: AttemptKind) -> ActiveAttempt:
        upstream = await race.started(0 if kind is AttemptKind.FIRST else 1)
        await start.wait()
        return upstream

    racing = asyncio.create_task(hedging.race(lane, lambda: 0.0, lambda: True))
    while len([one for one in race.retry_state.attempts if one.first_token]) < 2:
        await asyncio.sleep(0)
    start.set()
    winner = await racing
    lost = next(attempt for attempt in race.retry_state.attempts if attempt is not winner.record)
    assert (None, AttemptOutcome.CANCELLED) == (winner.record.outcome, lost.outcome)
    assert [False, True] == sorted(race.closed())


async def test_a_call_cancelled_while_the_loser_ends_leaves_nothing_open(race: Race) -> None:
    """The stream of the winner is closed too, because the call reads it no more."""
    ending, ended = asyncio.Event(), asyncio.Event()

    async def lane(kind: AttemptKind) -> ActiveAttempt:
        if kind is AttemptKind.HEDGE:
            return await race.started(1)
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await ended.wait()
        raise AssertionError

    racing = asyncio.create_task(hedging.race(lane, lambda: 0.0, lambda: True))
    await ending.wait()
    racing.cancel()
    ended.set()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert [False, True] == race.closed()
    assert AttemptOutcome.CANCELLED == race.retry_state.attempts[0].outcome


async def test_a_call_that_is_cancelled_twice_leaves_nothing_open(race: Race) -> None:
    """A token that arrives while the streams are being cancelled does not keep its stream open."""
    ending, ended = asyncio.Event(), asyncio.Event()

    async def lane(kind: AttemptKind) -> ActiveAttempt:
        if kind is AttemptKind.HEDGE:
            upstream = await race.started(1)
            racing.cancel()
            return upstream
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        ending.set()
        with suppress(asyncio.CancelledError):
            await ended.wait()
        raise AssertionError

    racing = asyncio.create_task(hedging.race(lane, lambda: 0.0, lambda: True))
    await ending.wait()
    racing.cancel()
    ended.set()
    with pytest.raises(asyncio.CancelledError):
        await racing
    while not race.closed()[1]:
        await asyncio.sleep(0)
    assert AttemptOutcome.CANCELLED == race.retry_state.attempts[0].outcome
