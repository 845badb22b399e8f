"""One attempt: its place at the target, and what its first token says of it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from parley.config import Model, Retries, Target
from parley.core.errors import UpstreamUnavailable
from parley.core.routing import upstream_stream
from parley.core.routing.attempts import Attempt
from parley.core.routing.breaker import IN_A_ROW
from parley.core.routing.budget import Budget
from parley.core.routing.retry_state import Course
from parley.core.routing.targets import Candidate, LiveTarget
from parley.core.routing.upstream_stream import Asked
from parley.core.usage.attempts import Kind
from tests.rpc.scripted import ScriptedBackend, chunks, completion
from tests.unit.routing.routes import CALL, Clock


class Narrow:
    """A course with one target that has one place."""

    def __init__(self) -> None:
        self.clock, self.backend = Clock(), ScriptedBackend()
        target = Target(backend="a", max_concurrent=1)
        self.target = LiveTarget(target, self.backend, None, self.clock)
        self.candidate = Candidate(Model(id="m", targets=[target]), target, self.target)
        self.course = Course("m", [self.candidate], Retries(), Budget(1, self.clock), deadline=None, clock=self.clock)

    async def begin(self) -> Attempt:
        """Begins an attempt, which has the place then."""
        attempt = await upstream_stream.begin(self.course, self.candidate, CALL, Kind.FIRST)
        assert attempt is not None
        return attempt

    async def is_free(self) -> bool:
        """Tells whether there is a place."""
        return await self.target.take_place(0)


@pytest.fixture
def narrow() -> Narrow:
    """The course."""
    return Narrow()


async def _whole(narrow: Narrow) -> None:
    await upstream_stream.complete(narrow.course, await narrow.begin())


async def _streamed(narrow: Narrow) -> None:
    asked = Asked(narrow.course, await narrow.begin())
    await asked.reach_token()
    assert not await narrow.is_free()
    async for _ in asked.rest:
        pass
    await asked.close()
    await asked.close()


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
    for _ in range(IN_A_ROW):
        breaker.failed(breaker.enter() or 0)
    narrow.clock.now += breaker.retry_in()
    narrow.backend.answer = lambda _: [chunks("Hi")[0], asyncio.Event()]
    asked = Asked(narrow.course, await narrow.begin())
    assert not breaker.is_closed
    await asked.reach_token()
    assert breaker.is_closed
    await asked.close()
