"""What a worker does again and again: the reaper, the watch over the store, and what both stand on."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from parley.core.background import PeriodicTask
from parley.core.errors import StoreUnavailable
from parley.core.ports import Reaped
from parley.core.sessions.reaper import Reaper
from parley.core.sessions.store_monitor import StoreMonitor

DAY = 86400.0


class Work:
    """Does what its script says, one step a time: an exception is raised; `over` is set after the last step."""

    def __init__(self, *steps: Exception | None) -> None:
        self.steps = list(steps)
        self.over = asyncio.Event()

    async def __call__(self) -> None:
        step = self.steps.pop(0) if self.steps else None
        if not self.steps:
            self.over.set()
        if step is not None:
            raise step


async def _run(work: Work) -> Sequence[Any]:
    """Lets it be done to its end, and once more; returns what was logged."""
    with capture_logs() as logs:
        repeating = PeriodicTask("the work", work, 0.0)
        repeating.start()
        repeating.start()
        for _ in range(2):
            await asyncio.wait_for(work.over.wait(), 10)
            work.over.clear()
        await repeating.stop()
    return logs


class TestRepeating:
    """Work that goes on."""

    async def test_an_outage_is_logged_once_and_its_end_too(self) -> None:
        """However many tries fail; and the next outage is another one."""
        away = StoreUnavailable("refused")
        logs = await _run(Work(away, away, away, None, None, away, None))
        assert ["failing", "working again"] * 2 == [line["event"] for line in logs]
        assert {"what": "the work", "cause": "refused"}.items() <= logs[0].items()

    async def test_what_nobody_foresaw_ends_nothing(self) -> None:
        """It is logged with its trace, and the work goes on."""
        error = ZeroDivisionError("a mistake")
        logs = await _run(Work(error, None))
        assert [("failing", error), ("working again", None)] == [(line["event"], line.get("exc_info")) for line in logs]

    async def test_stopping_ends_the_work_itself(self) -> None:
        """Nothing runs on after it, and one that never began can be stopped too."""
        started, ended = asyncio.Event(), []

        async def work() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        repeating = PeriodicTask("the work", work, 0.0)
        await repeating.stop()
        repeating.start()
        await asyncio.wait_for(started.wait(), 10)
        await repeating.stop()
        assert [True] == ended


class ReapingStore:
    """A store that has cleared what its script says."""

    def __init__(self, *reaped: Reaped | Exception) -> None:
        self.reaped = list(reaped)
        self.asked: list[tuple[float | None, float]] = []
        self.most = 0
        self.purges: list[bool] = []
        self.was_asked = asyncio.Event()

    async def reap(self, *, session_age: float | None, claim_age: float, limit: int) -> Reaped:
        self.asked.append((session_age, claim_age))
        self.most = limit
        self.was_asked.set()
        step = self.reaped.pop(0) if self.reaped else Reaped()
        if isinstance(step, Exception):
            raise step
        return step

    async def purge(self) -> bool:
        return self.purges.pop(0) if self.purges else False


def _reaper(store: ReapingStore, ttl: float | None = 30 * DAY) -> Reaper:
    return Reaper(store, ttl, 0.001)  # type: ignore[arg-type] # the part that it needs


class TestReaper:
    """What is due is cleared."""

    @pytest.mark.parametrize("ttl", [30 * DAY, None])
    async def test_ages(self, ttl: float | None) -> None:
        """Sessions past their retention, or none where they are kept for ever; kept answers after a day."""
        store = ReapingStore()
        await _reaper(store, ttl).reap()
        assert [(ttl, DAY)] == store.asked

    async def test_what_was_cleared_is_logged_and_nothing_else(self) -> None:
        """A line with the counts where there was anything to clear."""
        reaper = _reaper(ReapingStore(Reaped(crashed=2, claims=1)))
        with capture_logs() as logs:
            await reaper.reap()
            await reaper.reap()
        assert [{"event": "reaped", "log_level": "info", "crashed": 2, "sessions": 0, "claims": 1}] == logs

    async def test_much_is_cleared_in_parts_without_a_pause(self) -> None:
        """A full part is followed by the next one at once."""
        store = ReapingStore()
        await _reaper(store).reap()
        store.asked.clear()
        store.reaped = [Reaped(sessions=store.most), Reaped(claims=store.most), Reaped(crashed=1)]
        await _reaper(store).reap()
        assert 3 == len(store.asked)

    async def test_deleted_rows_are_removed_without_a_pause(self) -> None:
        """As long as rows of deleted sessions are left; crashed turns are cleared in between."""
        store = ReapingStore()
        store.purges = [True, True, False]
        await _reaper(store).reap()
        assert 3 == len(store.asked)
        assert [] == store.purges

    async def test_it_goes_on_until_it_is_stopped(self) -> None:
        """Through failures of the store, which are logged once."""
        away = StoreUnavailable("away")
        store = ReapingStore(away, away)
        reaper = _reaper(store)
        with capture_logs() as logs:
            reaper.start()
            for _ in range(4):
                await asyncio.wait_for(store.was_asked.wait(), 10)
                store.was_asked.clear()
            await reaper.stop()
        assert ["failing", "working again"] == [line["event"] for line in logs]
        count = len(store.asked)
        await asyncio.sleep(0)
        assert count == len(store.asked)


class CheckedStore:
    """A store whose check does what `check` says."""

    def __init__(self) -> None:
        self.answer: Callable[[], Awaitable[None]] = self._fine

    async def _fine(self) -> None:
        """Is there."""

    async def check(self) -> None:
        await self.answer()


class TestWatch:
    """Whether the store is there."""

    async def test_changes_are_told_and_logged_once(self) -> None:
        """Not each check: when it goes, and when it comes back."""
        store, reported = CheckedStore(), []

        async def changed(is_there: bool) -> None:
            reported.append(is_there)

        async def refuse() -> None:
            raise StoreUnavailable("refused")

        watch = StoreMonitor(store, changed)  # type: ignore[arg-type]
        fine = store.answer
        with capture_logs() as logs:
            for answer in (fine, refuse, refuse, fine, fine):
                store.answer = answer
                await watch.check()
        assert [False, True] == reported
        assert [("the store is unavailable", "refused"), ("the store is available again", None)] == [
            (line["event"], line.get("cause")) for line in logs
        ]
        assert watch.is_available

    async def test_silence_is_absence(self) -> None:
        """A store that does not answer is away, and the watch goes on."""
        store, reported = CheckedStore(), []

        async def changed(is_there: bool) -> None:
            reported.append(is_there)

        async def silent() -> None:
            await asyncio.Event().wait()

        store.answer = silent
        await StoreMonitor(store, changed, timeout_seconds=0.01).check()  # type: ignore[arg-type]
        assert [False] == reported
