"""A simulation of slow first tokens, silent targets and outages, with default settings and a virtual clock.

The backends are scripted at their port; routing, hedging and breakers are real and use the clock of the loop.
"""

import pytest

from parley.core.routing.call_origin import PLAIN_ORIGIN
from tests.unit.routing import virtual_time
from tests.unit.routing.virtual_backends import World

both_ways = pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "whole"])


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
        assert target.breakers.is_closed(PLAIN_ORIGIN)

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
    """With `hedge: off` only `first_token` bounds each call, but the breaker records late calls immediately."""

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
