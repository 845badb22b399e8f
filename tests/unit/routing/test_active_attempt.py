"""Tests of an attempt in progress: its slot, its result, and the effect of its first token."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from parley.config import Model, Retries, Target
from parley.core.errors import UpstreamRejected, UpstreamUnavailable
from parley.core.messages.text_completion import as_message
from parley.core.routing.active_attempt import ActiveAttempt, RejectedMode
from parley.core.routing.breaker import CONSECUTIVE_FAILURES
from parley.core.routing.budget import RetryBudget
from parley.core.routing.retry_state import RetryState
from parley.core.routing.targets import Candidate, LiveTarget
from parley.core.streaming.prefix import PrefixMismatch
from parley.core.usage.attempts import AttemptKind, AttemptOutcome
from tests.rpc.scripted import ScriptedBackend, chunks, completion
from tests.unit.routing.routes import CALL, Clock


class Narrow:
    """A call with one target that has one slot."""

    def __init__(self) -> None:
        self.clock, self.backend = Clock(), ScriptedBackend()
        target = Target(backend="a", max_concurrent=1)
        self.target = LiveTarget(target, self.backend, None, self.clock)
        self.candidate = Candidate(Model(id="m", targets=[target]), target, self.target)
        self.retry_state = self.state()

    def state(self, deadline: float | None = None) -> RetryState:
        """Returns the state of a new call."""
        budget = RetryBudget(1, self.clock)
        return RetryState("m", [self.candidate], Retries(), budget, deadline=deadline, clock=self.clock)

    async def begin(self, kind: AttemptKind = AttemptKind.FIRST) -> ActiveAttempt:
        """Starts an attempt, which then holds the slot."""
        attempt = await ActiveAttempt.start(self.retry_state, self.candidate, CALL, kind)
        assert attempt is not None
        return attempt

    async def is_free(self) -> bool:
        """Acquires the slot; returns whether it was free."""
        return await self.target.acquire_slot(0)


@pytest.fixture
def narrow() -> Narrow:
    """The call."""
    return Narrow()


async def _complete(narrow: Narrow) -> None:
    attempt = await narrow.begin()
    async with attempt:
        attempt.record_usage(as_message(await narrow.target.answer(attempt.record.call)))
    if attempt.error:
        raise attempt.error


async def _streamed(narrow: Narrow) -> None:
    attempt = await narrow.begin()
    if not await attempt.wait_first_token():
        assert attempt.error
        raise attempt.error
    assert not await narrow.is_free()
    async with attempt:
        async for _ in attempt.rest:
            pass
    await attempt.cancel()
    assert AttemptOutcome.COMPLETED is attempt.record.outcome


RunAttempt = Callable[[Narrow], Awaitable[None]]


@pytest.mark.parametrize(("run", "answer"), [(_complete, completion("Hi")), (_streamed, chunks("Hi"))])
async def test_a_completed_attempt_releases_its_slot(narrow: Narrow, run: RunAttempt, answer: object) -> None:
    """The slot is released once, at the end of the attempt."""
    narrow.backend.answer = lambda _: answer
    await run(narrow)
    assert [True, False] == [await narrow.is_free(), await narrow.is_free()]


@pytest.mark.parametrize("run", [_complete, _streamed])
async def test_a_failed_attempt_releases_its_slot(narrow: Narrow, run: RunAttempt) -> None:
    """The slot is free before anything else is tried."""
    narrow.backend.answer = lambda _: UpstreamUnavailable("down")
    with pytest.raises(UpstreamUnavailable):
        await run(narrow)
    assert [True, False] == [await narrow.is_free(), await narrow.is_free()]


@pytest.mark.parametrize("run", [_complete, _streamed])
async def test_a_cancelled_attempt_releases_its_slot(narrow: Narrow, run: RunAttempt) -> None:
    """An attempt that is cancelled before its first token releases its slot."""
    narrow.backend.answer = lambda _: asyncio.Event()
    task = asyncio.ensure_future(run(narrow))
    while not narrow.backend.calls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [True, False] == [await narrow.is_free(), await narrow.is_free()]


async def test_the_first_token_of_a_probe_closes_the_breaker(narrow: Narrow) -> None:
    """Other calls are admitted at the probe's first token, not at the end of its stream, which may take minutes."""
    breaker = narrow.target.breakers.shared
    for _ in range(CONSECUTIVE_FAILURES):
        breaker.record_failure(breaker.try_acquire_permit() or 0)
    narrow.clock.now += breaker.remaining_delay()
    narrow.backend.answer = lambda _: [chunks("Hi")[0], asyncio.Event()]
    attempt = await narrow.begin()
    assert not breaker.is_closed
    await attempt.wait_first_token()
    assert breaker.is_closed
    await attempt.cancel()


def _ends() -> list[tuple[BaseException | None, AttemptOutcome]]:
    return [
        (None, AttemptOutcome.COMPLETED),
        (UpstreamUnavailable("down"), AttemptOutcome.FAILED),
        (UpstreamRejected("no prefill"), AttemptOutcome.FAILED),
        (PrefixMismatch(), AttemptOutcome.PREFIX_MISMATCH),
        (asyncio.CancelledError(), AttemptOutcome.CANCELLED),
        (RuntimeError("a defect"), AttemptOutcome.CANCELLED),
    ]


@pytest.mark.parametrize(("error", "outcome"), _ends(), ids=repr)
@pytest.mark.parametrize("kind", [AttemptKind.FIRST, AttemptKind.CONTINUATION])
async def test_every_end_records_one_result_and_releases_the_slot_once(
    narrow: Narrow, kind: AttemptKind, error: BaseException | None, outcome: AttemptOutcome
) -> None:
    """A later `cancel` changes neither the result nor the number of free slots."""
    attempt = await narrow.begin(kind)
    with suppress(UpstreamRejected, asyncio.CancelledError, RuntimeError):
        async with attempt:
            if error is not None:
                raise error
    await attempt.cancel()
    assert [outcome] == [one.outcome for one in narrow.retry_state.attempts]
    assert [True, False] == [await narrow.is_free(), await narrow.is_free()]
    is_rejection = isinstance(error, UpstreamRejected) and kind is AttemptKind.CONTINUATION
    assert (RejectedMode.PREFILL if is_rejection else None) is attempt.rejected_mode


async def test_a_target_without_a_free_slot_starts_no_attempt(narrow: Narrow) -> None:
    """The receipt has no attempt for it, and the call's error says that all targets are at capacity."""
    assert await narrow.target.acquire_slot(0)
    narrow.retry_state = narrow.state(deadline=narrow.clock() + 0.01)
    assert await ActiveAttempt.start(narrow.retry_state, narrow.candidate, CALL, AttemptKind.FIRST) is None
    assert [] == narrow.retry_state.attempts
