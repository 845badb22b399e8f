"""One attempt: its place at the target, and what its first token says of it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from parley.config import Model, Retries, Target
from parley.core.errors import UpstreamUnavailable
from parley.core.routing import upstream_stream
from parley.core.routing.attempts import Attempt
from parley.core.routing.breaker import CONSECUTIVE_FAILURES
from parley.core.routing.budget import RetryBudget
from parley.core.routing.retry_state import RetryState
from parley.core.routing.targets import Candidate, LiveTarget
from parley.core.routing.upstream_stream import UpstreamStream
from parley.core.usage.attempts import AttemptKind
from tests.rpc.scripted import ScriptedBackend, chunks, completion
from tests.unit.routing.routes import CALL, Clock


class Narrow:
    """A course with one target that has one place."""

    def __init__(self) -> None:
        self.clock, self.backend = Clock(), ScriptedBackend()
        target = Target(backend="a", max_concurrent=1)
        self.target = LiveTarget(target, self.backend, None, self.clock)
        self.candidate = Candidate(Model(id="m", targets=[target]), target, self.target)
        self.retry_state = RetryState(
            "m", [self.candidate], Retries(), RetryBudget(1, self.clock), deadline=None, clock=self.clock
        )

    async def begin(self) -> Attempt:
        """Begins an attempt, which has the place then."""
        attempt = await upstream_stream.start_attempt(self.retry_state, self.candidate, CALL, AttemptKind.FIRST)
        assert attempt is not None
        return attempt

    async def is_free(self) -> bool:
        """Tells whether there is a place."""
        return await self.target.acquire_slot(0)


@pytest.fixture
def narrow() -> Narrow:
    """The course."""
    return Narrow()


async def _whole(narrow: Narrow) -> None:
    await upstream_stream.complete(narrow.retry_state, await narrow.begin())


async def _streamed(narrow: Narrow) -> None:
    upstream = UpstreamStream(narrow.retry_state, await narrow.begin())
    await upstream.wait_first_token()
    assert not await narrow.is_free()
    async for _ in upstream.rest:
        pass
    await upstream.close()
    await upstream.close()


Ask = Callable[[Narrow], Awaitable[None]]


@pytest.mark.parametrize(("ask", "answer"), [(_whole, completion("Hi")), (_streamed, chunks("Hi"))])
async def test_an_answer_gives_the_place_back(narrow: Narrow, ask: Ask, answer: object) -> None:
    """Once, when it is over."""
    narrow.backend.answer = lambda _: answer
    await ask(narrow)
    assert [True, False] == [await narrow.is_free(), await narrow.is_free()]


@pytest.mark.parametrize("ask", [_whole, _streamed])
async def test_a_failure_gives_the_place_back(narrow: Narrow, ask: Ask) -> None:
    """Before anything else is tried."""
    narrow.backend.answer = lambda _: UpstreamUnavailable("down")
    with pytest.raises(UpstreamUnavailable):
        await ask(narrow)
    assert [True, False] == [await narrow.is_free(), await narrow.is_free()]


@pytest.mark.parametrize("ask", [_whole, _streamed])
async def test_a_caller_who_leaves_gives_the_place_back(narrow: Narrow, ask: Ask) -> None:
    """Before the first token, too."""
    narrow.backend.answer = lambda _: asyncio.Event()
    task = asyncio.ensure_future(ask(narrow))
    while not narrow.backend.calls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [True, False] == [await narrow.is_free(), await narrow.is_free()]


async def test_the_first_token_of_a_probe_closes_the_breaker(narrow: Narrow) -> None:
    """Others need not wait until the stream is over, which may take minutes."""
    breaker = narrow.target.breaker
    for _ in range(CONSECUTIVE_FAILURES):
        breaker.record_failure(breaker.try_acquire_permit() or 0)
    narrow.clock.now += breaker.remaining_delay()
    narrow.backend.answer = lambda _: [chunks("Hi")[0], asyncio.Event()]
    upstream = UpstreamStream(narrow.retry_state, await narrow.begin())
    assert not breaker.is_closed
    await upstream.wait_first_token()
    assert breaker.is_closed
    await upstream.close()
