"""Tests of active health checks."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from parley.config import HealthCheck
from parley.config.loader import parse
from parley.core.errors import ParleyError, UpstreamUnavailable
from parley.core.routing.health import HealthChecker
from parley.core.routing.router import Router
from tests.rpc.scripted import ScriptedBackend
from tests.unit.routing.routes import new_execution

CONFIG = """
backends:
  a: {kind: openai, base_url: "http://127.0.0.1:1/v1", health: {path: /health}}
  b: {kind: openai, base_url: "http://127.0.0.1:1/v1"}
models:
  - {id: m, targets: [{backend: a, weight: 1000000000, model: one}, {backend: b}]}
  - {id: other, targets: [{backend: a, model: two}]}
"""


class Checked(ScriptedBackend):
    """A backend whose health check has a scripted result."""

    def __init__(self) -> None:
        super().__init__()
        self.cause: str | None = None
        self.hangs = False
        self.checks = 0

    async def check(self) -> None:
        """Succeeds, fails or hangs as scripted."""
        self.checks += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.cause:
            raise UpstreamUnavailable("unhealthy", cause=self.cause)


class Watched:
    """A router whose backend `a` is checked every few milliseconds."""

    def __init__(self) -> None:
        self.a, self.b = Checked(), ScriptedBackend()
        backends = {"a": self.a, "b": self.b}
        self.router = Router(parse(CONFIG, "f"), backends)
        self.targets = {target.name: target for target in self.router.targets}
        self.watch = HealthChecker(backends, {"a": HealthCheck(interval=0.005, timeout=0.05)}, self.router.targets)

    async def called(self, model: str) -> str:
        """Makes a call; returns the name of the backend that was called."""
        before = len(self.a.calls)
        await new_execution(self.router, model).complete()
        return "a" if len(self.a.calls) > before else "b"


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    """The router, whose checks run during the test."""
    made = Watched()
    made.watch.start()
    yield made
    await made.watch.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Waits until the checks have made a condition true."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


async def test_targets_of_an_unhealthy_backend_are_skipped_until_its_check_succeeds(watched: Watched) -> None:
    """Only targets of the unhealthy backend are skipped; a call without another target fails immediately."""
    assert "a" == await watched.called("m")
    watched.a.cause = "loading"
    await until(lambda: not watched.targets["a/one"].healthy)
    assert (False, True) == (watched.targets["a/two"].healthy, watched.targets["b"].healthy)
    assert "b" == await watched.called("m")
    with pytest.raises(ParleyError, match="is not available") as caught:
        await watched.called("other")
    assert "health check" in (caught.value.cause or "")
    watched.a.cause = None
    await until(lambda: watched.targets["a/one"].healthy)
    assert "a" == await watched.called("m")


async def test_a_check_without_an_answer_fails(watched: Watched) -> None:
    """The check fails after its `timeout` and is repeated."""
    watched.a.hangs = True
    await until(lambda: not watched.targets["a/one"].healthy)
    watched.a.hangs = False
    await until(lambda: watched.targets["a/one"].healthy)


async def test_a_check_that_succeeds_again_makes_the_probe_due(watched: Watched) -> None:
    """The next call is the probe, before the end of the breaker's interval."""
    breaker = watched.targets["a/one"].breakers.shared
    watched.a.cause = "down"
    await until(lambda: not watched.targets["a/one"].healthy)
    while breaker.is_closed:
        permit = breaker.try_acquire_permit()
        assert permit is not None
        breaker.record_failure(permit)
    watched.a.cause = None
    await until(lambda: watched.targets["a/one"].healthy)
    assert not breaker.is_closed
    assert "a" == await watched.called("m")
    assert breaker.is_closed


async def test_checks_that_keep_succeeding_leave_an_open_breaker_alone(watched: Watched) -> None:
    """A target whose calls fail and whose checks succeed keeps the interval between its probes."""
    breaker = watched.targets["a/one"].breakers.shared
    while breaker.is_closed:
        permit = breaker.try_acquire_permit()
        assert permit is not None
        breaker.record_failure(permit)
    checks = watched.a.checks
    await until(lambda: watched.a.checks > checks + 2)
    assert "b" == await watched.called("m")
