"""A simulation of slow first tokens, silent targets and outages, with default settings and a virtual clock.

The backends are scripted at their port; routing, hedging and breakers are real and use the clock of the loop.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from parley.config import parse
from parley.core.errors import ParleyError, UpstreamTimeout, UpstreamUnavailable
from parley.core.ports import Caller, UpstreamCall
from parley.core.routing.router import Router
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from tests.rpc.scripted import chunks
from tests.unit.routing import virtual_time

CONFIG = """
backends:
  a: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
  b: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
models:
  - {id: m, targets: [{backend: a}], fallbacks: [spare]}
  - {id: spare, targets: [{backend: b}]}
  - {id: alone, targets: [{backend: a}]}
  - {id: unhedged, targets: [{backend: a}], fallbacks: [spare], hedge: off}
"""
ANYONE = Caller("default", "key_1")
FIRST_TOKEN = 120.0

both_ways = pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "whole"])


class Backend:
    """Sends its name after `seconds`, times out past `first_token`, and fails while `is_down`."""

    supports_prefill = True

    def __init__(self, name: str, seconds: float = 0.3) -> None:
        self.name = name
        self.seconds: Callable[[], float] = lambda: seconds
        self.is_down = False
        self.called: list[float] = []
        self.open = 0
        self.most_open = 0

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Is never called: all models of the test use streams."""
        raise AssertionError

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Answers as scripted."""
        self.called.append(asyncio.get_running_loop().time())
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.is_down:
                raise UpstreamUnavailable("not available")
            seconds = self.seconds()
            await asyncio.sleep(min(seconds, FIRST_TOKEN))
            if seconds > FIRST_TOKEN:
                raise UpstreamTimeout("no first token")
            for chunk in chunks(self.name):
                yield chunk
        finally:
            self.open -= 1

    async def check(self) -> None:
        """Always succeeds."""

    async def close(self) -> None:
        """Closes nothing."""


class World:
    """Two backends, and calls of a model."""

    def __init__(self) -> None:
        self.a, self.b = Backend("a"), Backend("b")
        self.loop = asyncio.get_running_loop()
        self.router = Router(parse(CONFIG, "f"), {"a": self.a, "b": self.b}, clock=self.loop.time)
        self.answers: list[tuple[float, float, str]] = []  # when it was called, how long it took, what came

    async def call(self, model: str = "m", *, is_stream: bool = True) -> tuple[float, str]:
        """Makes a call; returns how long it took in seconds and which backend answered."""
        found, request = self.router.model(ANYONE, model), CreateChatCompletionRequest()
        started = self.loop.time()
        execution = self.router.new_execution(found, request, request.messages, session_id=None, deadline=None)
        try:
            if is_stream:
                text = "".join([choice.delta.content async for chunk in execution.stream() for choice in chunk.choices])
            else:
                text = (await execution.complete()).choices[0].message.content.string_value
        except ParleyError as error:
            text = type(error).__name__
        self.answers.append((started, self.loop.time() - started, text))
        return self.answers[-1][1:]

    async def calls(self, seconds: float, each: float, model: str = "m", *, is_stream: bool = True) -> None:
        """Makes a call every `seconds` for a period, whether or not earlier calls have ended; then waits for all."""
        running = []
        for _ in range(round(seconds / each)):
            running.append(asyncio.create_task(self.call(model, is_stream=is_stream)))
            await asyncio.sleep(each)
        await asyncio.gather(*running)

    def since(self, started: float) -> list[tuple[float, str]]:
        """Returns the answers to calls that were made since then."""
        return [(took, text) for at, took, text in self.answers if at >= started]


@pytest.mark.parametrize("known", [False, True], ids=["fresh", "known to be fast"])
@both_ways
def test_s07_a_slow_first_token_is_answered_within_15_seconds(is_stream: bool, known: bool) -> None:
    """Every call of a target that is always slow is answered in time, so the target does not raise its threshold."""

    async def main() -> None:
        world = World()
        if known:
            await world.calls(20, 1, is_stream=is_stream)
        world.a.seconds = lambda: 20.0
        started = world.loop.time()
        for _ in range(60):
            await world.call(is_stream=is_stream)
        assert max(took for took, _ in world.since(started)) <= (3 if known else 11)
        assert {"b"} == {text for _, text in world.since(started)}

    virtual_time.run(main())


@both_ways
def test_s06_no_response_at_all_is_answered_within_15_seconds(is_stream: bool) -> None:
    """The next target answers, and the silent one is tried once per call."""

    async def main() -> None:
        world = World()
        world.a.seconds = lambda: 10_000.0
        assert ("b", 1) == ((await world.call(is_stream=is_stream))[1], len(world.a.called))
        assert world.answers[0][1] <= 15

    virtual_time.run(main())


def test_s15_a_target_that_returns_after_60_seconds_is_used_again_within_30() -> None:
    """With a call every four seconds, as in the benchmark, all are answered, and one of five calls is the probe."""

    async def main() -> None:
        for offset in range(0, 40, 3):
            world = World()
            await world.calls(8 + offset / 10, 0.4)
            world.a.is_down = True
            gone = world.loop.time()
            await world.calls(60, 4)
            world.a.is_down = False
            back = world.loop.time()
            await world.calls(20, 4)
            assert {"a", "b"} == {text for _, text in world.since(gone)}
            used = next(at for at, _, text in world.answers if at >= gone + 5 and text == "a")
            assert used - back <= 20

    virtual_time.run(main())


def test_f12_a_target_that_falls_silent_under_load_is_skipped_at_once() -> None:
    """With 20 calls a second the late calls open the breaker: no call waits long, and only probes are made then."""

    async def main() -> None:
        world = World()
        await world.calls(10, 0.05)
        world.a.seconds = lambda: 10_000.0
        silent = world.loop.time()
        await world.calls(60, 0.05)
        back = world.loop.time()
        assert {"b"} == {text for _, text in world.since(silent)}
        assert max(took for took, _ in world.since(silent)) < 4
        slow = [took for took, _ in world.since(silent) if took > 0.5]
        assert len(slow) < 60, "few calls meet the silence"
        assert len([at for at in world.a.called if at > silent + 4]) <= 6, "one probe each 10 to 15 s"
        world.a.seconds = lambda: 0.3
        await world.calls(30, 0.05)
        again = next(at for at, _, text in world.answers if at >= back and text == "a")
        assert again - back < 30

    virtual_time.run(main())


def test_a_target_that_is_silent_from_the_start_is_hedged_and_then_skipped() -> None:
    """Without samples, calls are hedged as far as the budget allows, and after half a minute the breaker opens."""

    async def main() -> None:
        world = World()
        world.a.seconds = lambda: 10_000.0
        await world.calls(60, 0.05)
        assert {"b"} == {text for _, _, text in world.answers}
        assert max(took for _, took, _ in world.answers) < 35
        assert len([at for at in world.a.called if at > world.answers[0][0] + 35]) <= 3

    virtual_time.run(main())


def test_reasoning_models_are_not_doubled_in_cost() -> None:
    """If first tokens take from 3 to 60 s, the `auto` threshold rises and only a few calls are hedged."""

    async def main() -> None:
        world = World()
        times = [3, 8, 5, 20, 9, 12, 35, 6, 15, 50, 10, 60, 4, 25, 7, 40, 18, 5, 30, 11]
        place = iter(range(10_000))
        world.a.seconds = lambda: float(times[next(place) % len(times)])
        world.b.seconds = lambda: 2.0
        for _ in range(100):
            await world.call()
        hedged = len(world.b.called)
        for _ in range(100):
            await world.call()
        assert len(world.b.called) - hedged <= 10

    virtual_time.run(main())


def test_targets_that_all_become_slow_continue_to_answer() -> None:
    """A slow target is skipped only while another target admits calls."""

    async def main() -> None:
        world = World()
        await world.calls(10, 0.5)
        for backend in (world.a, world.b):
            backend.seconds = lambda: 20.0
        slow = world.loop.time()
        await world.calls(300, 0.5)
        await world.calls(60, 0.5, "alone")
        assert {"a", "b"} >= {text for _, text in world.since(slow)}
        assert max(took for took, _ in world.since(slow)) < 45

    virtual_time.run(main())


def test_the_last_target_that_answers_is_not_late() -> None:
    """A fallback that is down is not an alternative to a slow target."""

    async def main() -> None:
        world = World()
        await world.calls(10, 0.5)
        world.a.seconds = lambda: 20.0
        world.b.is_down = True
        slow = world.loop.time()
        for _ in range(5):
            await world.call()  # finds the fallback down
        await world.calls(5, 0.5)
        assert {"a"} == {text for _, text in world.since(slow)}
        target = next(target for target in world.router.targets if target.backend_name == "a")
        assert target.breaker.is_closed

    virtual_time.run(main())


def test_a_call_without_an_alternative_may_use_a_slow_target() -> None:
    """Calls with an alternative skip the same target."""

    async def main() -> None:
        world = World()
        await world.calls(10, 0.5)
        world.a.seconds = lambda: 20.0
        await world.calls(10, 0.5)
        took, text = await world.call("alone")
        assert ("a", True) == (text, took >= 20)
        assert "b" == (await world.call())[1]

    virtual_time.run(main())


def test_late_calls_open_the_breaker_without_hedging() -> None:
    """With `hedge: off` only `first_token` bounds each call, but the breaker records a late call at once."""

    async def main() -> None:
        world = World()
        await world.calls(10, 0.5, "unhedged")
        world.a.seconds = lambda: 10_000.0
        started = world.loop.time()
        await world.calls(10, 0.5, "unhedged")
        waited = [took for took, _ in world.since(started) if took > 5]
        assert len(waited) <= 10
        assert {"b"} == {text for _, text in world.since(started)}

    virtual_time.run(main())


def test_there_is_one_probe_at_a_time() -> None:
    """A silent probe is cancelled as soon as it is late, and the next target answers the call."""

    async def main() -> None:
        world = World()
        await world.calls(10, 0.05)
        world.a.seconds = lambda: 10_000.0
        await world.calls(10, 0.05)
        world.a.most_open = 0
        probing = world.loop.time()
        await world.calls(100, 0.05)
        assert world.a.most_open <= 1
        assert max(took for took, _ in world.since(probing)) < 4

    virtual_time.run(main())
