"""A configured guard: its deadline and breakers, what a failure costs, and that calls do not hurt each other."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from parley.config import Guard as GuardConfig
from parley.core.errors import DeadlineExceeded, GuardUnavailable
from parley.core.guards.configured import CheckedCall, ConfiguredGuard
from parley.core.guards.decisions import Decision, Redaction, Refusal
from parley.core.guards.records import GuardRecord
from parley.core.offload import record_size
from parley.core.ports import GuardError
from parley.core.routing.call_origin import CallOrigin
from parley.guard.v1.guard_pb2 import Allow, CheckRequest, CheckResponse, Unit
from parley.guards import patterns
from parley.guards.patterns import PatternGuard

ALLOW = CheckResponse(allow=Allow())
CLOSED, OPEN = GuardConfig(deadline=0.02), GuardConfig(deadline=0.02, on_failure="open")
SECRET = "AKIA" + "ABCDEFGH23456777"


class Scripted(NamedTuple):
    """A guard that does what a test says."""

    run: Callable[[], Awaitable[CheckResponse]]
    is_remote: bool = True

    async def check(self, _: CheckRequest) -> CheckResponse:
        """Runs the script."""
        return await self.run()

    async def close(self) -> None:
        """Does nothing."""


async def slow() -> CheckResponse:
    """Takes longer than the deadline."""
    await asyncio.sleep(0.06)
    return ALLOW


async def broken() -> CheckResponse:
    """Fails."""
    raise GuardError("error", "broken")


async def check(
    guard: ConfiguredGuard, text: str = "a", *, account: str = "a", deadline: float | None = None
) -> Decision:
    """Checks a text."""
    call = CheckedCall(CallOrigin(account), deadline)
    return await guard.check(CheckRequest(units=[Unit(text=text)], last=True), call, GuardRecord("g", "before"))


async def failures(guard: ConfiguredGuard, count: int) -> list[str]:
    """Returns the reasons of so many failures."""
    reasons = []
    for _ in range(count):
        with pytest.raises(GuardUnavailable) as caught:
            await check(guard)
        reasons.append(caught.value.guard_reason)
    return reasons


async def test_a_guard_that_is_not_remote_has_no_deadline_and_no_breaker() -> None:
    """It is always there: a long check is none that failed, and failures keep no later check from running."""
    assert await check(ConfiguredGuard("g", CLOSED, Scripted(slow, is_remote=False))) is None
    assert ["error"] * 7 == await failures(ConfiguredGuard("g", CLOSED, Scripted(broken, is_remote=False)), 7)
    ends = asyncio.get_running_loop().time() + 0.01
    with pytest.raises(DeadlineExceeded):
        await check(ConfiguredGuard("g", OPEN, Scripted(slow, is_remote=False)), deadline=ends)


async def test_a_remote_guard_has_both() -> None:
    """A check ends at the deadline, and after five failures the guard is called no more."""
    assert ["timeout"] * 5 + ["breaker_open"] == await failures(ConfiguredGuard("g", CLOSED, Scripted(slow)), 6)


@pytest.mark.parametrize("error", [KeyError("the text"), TimeoutError("of its own"), GuardError("error", "x")])
async def test_any_failure_is_the_guards(error: Exception) -> None:
    """Whatever a guard raises is a failure of the guard, and costs what the configuration says."""

    async def fail() -> CheckResponse:
        raise error

    record, guard = GuardRecord("g", "after"), ConfiguredGuard("g", OPEN, Scripted(fail))
    request, call = CheckRequest(units=[Unit(text="a")]), CheckedCall(CallOrigin("a"), None)
    with capture_logs() as logged:
        for _ in range(2):
            assert await guard.check(request, call, record) is None
        assert ["error"] == await failures(ConfiguredGuard("g", CLOSED, Scripted(fail)), 1)
    assert ("failed_open", "error") == (record.outcome, record.reason)
    assert "the text" not in record.cause
    unexpected = [error] * 2 if not isinstance(error, GuardError) else []  # once for the two checks of a record
    assert unexpected == [line["exc_info"] for line in logged]


async def test_a_large_text_delays_no_other_check() -> None:
    """The checks of long texts take turns, so that a shorter one that comes later ends before them."""
    guard = ConfiguredGuard("g", GuardConfig(secrets=True), PatternGuard(GuardConfig(secrets=True)))
    ended: list[str] = []

    async def run(name: str, text: str) -> None:
        record_size(size=len(text))
        assert isinstance(await check(guard, text, account=name), Redaction)
        ended.append(name)

    texts = {"large 1": 1_500_000, "large 2": 1_500_000, "small": 200_000}
    runs = [asyncio.create_task(run(name, "some words " * (size // 11) + SECRET)) for name, size in texts.items()]
    await asyncio.gather(*runs)
    assert "small" == ended[0]


@pytest.mark.parametrize(
    ("pattern", "text", "reason"),
    [("a", "a" * 3000, "too_many"), ("(?s)a.*z|a", "a" * 20_000, "too_costly"), ("a+", "a" * 30_000, None)],
)
async def test_the_work_of_a_check_is_bounded(
    pattern: str, text: str, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that costs too much is refused, and is no failure: a guard that is open would let it pass."""
    monkeypatch.setattr(patterns, "_MAX_FOUND", 2000)
    monkeypatch.setattr(patterns, "_MAX_SECONDS", 0.02)
    if reason == "too_costly":
        monkeypatch.setattr(patterns, "_MAX_FOUND", 10**6)
    found = await check(ConfiguredGuard("g", OPEN, PatternGuard(GuardConfig(patterns=[pattern]))), text)
    assert reason == (found.reason if isinstance(found, Refusal) else None)
