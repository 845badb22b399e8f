"""Tests of the background tasks of a worker: periodic tasks, the reaper and the store monitor."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from parley.core import background
from parley.core.background import PeriodicTask, length_of_pause
from parley.core.errors import StoreUnavailable
from parley.core.ports import Reaped
from parley.core.sessions.reaper import Reaper
from parley.core.sessions.store_monitor import StoreMonitor

DAY = 86400.0


class Work:
    """Runs scripted steps, one per call; an exception is raised, and `over` is set after the last step."""

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
    """Runs all steps and one more call; returns the log."""
    with capture_logs() as logs:
        repeating = PeriodicTask("the work", work, 0.0)
        repeating.start()
        repeating.start()
        for _ in range(2):
            await asyncio.wait_for(work.over.wait(), 60)
            work.over.clear()
        await repeating.stop()
    return logs


class TestPeriodicTask:
    """Tests of periodic tasks."""

    async def test_an_outage_is_logged_once_and_its_end_too(self) -> None:
        """Consecutive failures are logged once and their end once; a later outage is logged again."""
        away = StoreUnavailable("refused")
        logs = await _run(Work(away, away, away, None, None, away, None))
        assert ["failing", "working again"] * 2 == [line["event"] for line in logs]
        assert {"what": "the work", "cause": "refused"}.items() <= logs[0].items()

    async def test_an_unexpected_error_does_not_end_the_task(self) -> None:
        """An unexpected error is logged with its traceback, and the task continues."""
        error = ZeroDivisionError("a mistake")
        logs = await _run(Work(error, None))
        assert [("failing", error), ("working again", None)] == [(line["event"], line.get("exc_info")) for line in logs]

    async def test_stopping_ends_the_work_itself(self) -> None:
        """Stopping cancels the running work; a task that was never started can be stopped as well."""
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
        await asyncio.wait_for(started.wait(), 60)
        await repeating.stop()
        assert [True] == ended

    @pytest.mark.parametrize("seconds", [0.5, 0.6, 1.0, 1.1, 15.0])
    def test_pauses_end_at_common_times(self, seconds: float) -> None:
        """Pauses of any length end at times of every half second, near the requested ones."""
        other = 100.9 + length_of_pause(100.9, 0.5)
        end = 100.3 + length_of_pause(100.3, seconds)
        assert round(2 * (end - other)) == pytest.approx(2 * (end - other))
        assert 0.26 > abs(end - 100.3 - seconds)
        assert round(2 * seconds) / 2 == pytest.approx(length_of_pause(end, seconds))

    async def test_jitter_spreads_the_tasks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Tasks with jitter do not run at the common times: PostgreSQL would get a connection for each of them."""
        asked: list[float] = []
        monkeypatch.setattr(background, "pause", asked.append)
        task = PeriodicTask("the work", Work(None), 0.001, jitter=0.1)
        task.start()
        await asyncio.sleep(0.01)
        await task.stop()
        assert [] == asked

    def test_short_pauses_are_exact(self) -> None:
        """A pause shorter than the interval of the common times has the requested length."""
        assert 0.3 == length_of_pause(100.3, 0.3)


class ReapingStore:
    """A store whose `reap` returns scripted results."""

    def __init__(self, *reaped: Reaped | Exception) -> None:
        self.reaped = list(reaped)
        self.calls: list[tuple[float | None, float]] = []
        self.most = 0
        self.purges: list[bool] = []
        self.was_asked = asyncio.Event()

    async def reap(self, *, session_age: float | None, claim_age: float, limit: int) -> Reaped:
        self.calls.append((session_age, claim_age))
        self.most = limit
        self.was_asked.set()
        step = self.reaped.pop(0) if self.reaped else Reaped()
        if isinstance(step, Exception):
            raise step
        return step

    async def purge(self) -> bool:
        return self.purges.pop(0) if self.purges else False


def _reaper(store: ReapingStore, ttl: float | None = 30 * DAY) -> Reaper:
    return Reaper(store, ttl, 0.001)  # type: ignore[arg-type] # implements only the used part


class TestReaper:
    """Tests of the reaper."""

    @pytest.mark.parametrize("ttl", [30 * DAY, None])
    async def test_ages(self, ttl: float | None) -> None:
        """The reaper passes the retention of sessions, None to keep all, and one day for stored replies."""
        store = ReapingStore()
        await _reaper(store, ttl).reap()
        assert [(ttl, DAY)] == store.calls

    async def test_only_cleared_items_are_logged(self) -> None:
        """The counts are logged only if something was cleared."""
        reaper = _reaper(ReapingStore(Reaped(crashed=2, claims=1)))
        with capture_logs() as logs:
            await reaper.reap()
            await reaper.reap()
        assert [
            {"event": "reaped", "log_level": "info", "crashed": 2, "sessions": 0, "claims": 1, "answers": 0}
        ] == logs

    async def test_full_batches_follow_without_a_pause(self) -> None:
        """After a full batch the next one starts without a pause."""
        store = ReapingStore()
        await _reaper(store).reap()
        store.calls.clear()
        store.reaped = [Reaped(sessions=store.most), Reaped(claims=store.most), Reaped(crashed=1)]
        await _reaper(store).reap()
        assert 3 == len(store.calls)

    async def test_deleted_rows_are_removed_without_a_pause(self) -> None:
        """The purge is repeated while rows remain, and crashed turns are cleared between two purges."""
        store = ReapingStore()
        store.purges = [True, True, False]
        await _reaper(store).reap()
        assert 3 == len(store.calls)
        assert [] == store.purges

    async def test_the_reaper_runs_until_it_is_stopped(self) -> None:
        """The reaper continues after failures of the store, which are logged once."""
        away = StoreUnavailable("away")
        store = ReapingStore(away, away)
        reaper = _reaper(store)
        with capture_logs() as logs:
            reaper.start()
            for _ in range(4):
                await asyncio.wait_for(store.was_asked.wait(), 60)
                store.was_asked.clear()
            await reaper.stop()
        assert ["failing", "working again"] == [line["event"] for line in logs]
        count = len(store.calls)
        await asyncio.sleep(0)
        assert count == len(store.calls)


class CheckedStore:
    """A store whose `check` runs a scripted function."""

    def __init__(self) -> None:
        self.answer: Callable[[], Awaitable[None]] = self._fine

    async def _fine(self) -> None:
        """Succeeds."""

    async def check(self) -> None:
        await self.answer()


class TestStoreMonitor:
    """Tests of the store monitor."""

    async def test_changes_are_reported_and_logged_once(self) -> None:
        """Only changes of the availability are reported and logged, not each check."""
        store, reported = CheckedStore(), []

        async def changed(is_available: bool) -> None:
            reported.append(is_available)

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

    async def test_a_check_that_times_out_fails(self) -> None:
        """A check without an answer in time counts as a failure."""
        store, reported = CheckedStore(), []

        async def changed(is_available: bool) -> None:
            reported.append(is_available)

        async def silent() -> None:
            await asyncio.Event().wait()

        store.answer = silent
        await StoreMonitor(store, changed, timeout_seconds=0.01).check()  # type: ignore[arg-type]
        assert [False] == reported
