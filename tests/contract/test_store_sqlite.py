# ruff: noqa: ASYNC230 - a test may keep its loop waiting
"""The queue of writes of the SQLite store: group commit, order, and the event loop."""

import asyncio
import fcntl
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from parley.core.errors import InvalidRequest, SessionBusy, SessionNotFound, StoreUnavailable
from parley.core.ports import ApiKey, Turn
from parley.stores.sqlite import SqliteStore, writer
from tests.contract.stores import begin, complete, converse, key, message
from tests.keys import event


@contextmanager
def write_locked(file: Path) -> Iterator[None]:
    """Holds the file's write lock, as another process does during a commit."""
    connection = apsw.Connection(str(file))
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


async def queued(store: SqliteStore, file: Path, *writes: Coroutine[Any, Any, object]) -> list[object]:
    """Starts writes while the file is locked, so that they wait together; returns their results."""
    with write_locked(file):
        tasks = [asyncio.create_task(write) for write in writes]
        # One iteration of the loop lets every task queue its job.
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
    return list(await asyncio.gather(*tasks, return_exceptions=True))


class TestGroupCommit:
    """Tests of jobs that wait together and share a commit."""

    async def test_waiting_jobs_share_a_commit(self, store: SqliteStore, file: Path) -> None:
        """64 turns that wait together begin in one transaction and end in another."""
        before = store.counts.commits
        turns = await queued(store, file, *[begin(store, f"s{number}", "hi", new=True) for number in range(64)])
        assert 1 == store.counts.commits - before
        ends = [complete(store, turn) for turn in turns if isinstance(turn, Turn)]
        assert 64 == len(await queued(store, file, *ends))
        assert 2 == store.counts.commits - before
        assert 128 == store.counts.jobs

    async def test_jobs_are_collected_while_several_arrive(
        self, store: SqliteStore, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a commit of several jobs, jobs that arrive one shortly after another share the next commit."""
        await queued(store, file, *[begin(store, f"a{number}", "hi", new=True) for number in range(2)])
        monkeypatch.setattr(writer, "_COLLECT_SECONDS", 0.3)
        before = store.counts.commits
        tasks = []
        for number in range(5):
            tasks.append(asyncio.create_task(begin(store, f"b{number}", "hi", new=True)))
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)
        assert 1 == store.counts.commits - before

    async def test_a_failed_job_affects_no_other(self, store: SqliteStore, file: Path) -> None:
        """Rejected jobs do not affect the other jobs of their transaction."""
        await converse(store, "s", "q", "a", new=True)
        before = store.counts.commits
        results = await queued(
            store,
            file,
            begin(store, "s", "first"),
            begin(store, "s", "second"),
            begin(store, "nowhere", "hi"),
            begin(store, "s", "taken", new=True),
            begin(store, "t", "new", new=True),
        )
        kinds = [type(result) for result in results]
        assert [Turn, SessionBusy, SessionNotFound, apsw.ConstraintError, Turn] == kinds
        assert 1 == store.counts.commits - before
        page, _ = await store.list_messages("ada", "s", page_size=10, page_token=None)
        assert ["q", "a", "first"] == [one.message.content.string_value for one in page]

    async def test_a_failing_job_leaves_nothing(self, store: SqliteStore, file: Path) -> None:
        """A job that fails after a write is rolled back, and other jobs of its transaction are not."""
        await store.add_key(key(1, plan="pro"), event)
        results = await queued(
            store, file, store.add_key(key(1, plan="free"), event), store.add_key(key(2, account="bob"), event)
        )
        assert [apsw.ConstraintError, ApiKey] == [type(result) for result in results]
        assert [key(1, plan="pro"), key(2, account="bob")] == (await store.list_keys(page_size=9))[0]

    async def test_jobs_that_run_again(self, store: SqliteStore, file: Path) -> None:
        """A turn that is rejected after the write of its lease does not affect other turns of its transaction."""
        for session in ("s", "t", "u"):
            await converse(store, session, "q", "a", new=True)
        commits = store.counts.commits
        repeated = (message("user", "q"), message("assistant", "a"))
        results = await queued(
            store, file, begin(store, "s", "x"), begin(store, "t", *repeated), begin(store, "u", "y")
        )
        assert [Turn, InvalidRequest, Turn] == [type(result) for result in results]
        assert 1 == store.counts.commits - commits
        assert [2, 1, 2] == [(await store.get_session("ada", session)).turn_count for session in ("s", "t", "u")]
        assert 2 == (await begin(store, "t", "z")).fence

    async def test_cancelled_before_it_began(self, store: SqliteStore, file: Path) -> None:
        """A job whose caller is cancelled before it starts is skipped."""
        with write_locked(file):
            task = asyncio.create_task(begin(store, "s", "hi", new=True))
            other = asyncio.create_task(begin(store, "t", "hi", new=True))
            await asyncio.sleep(0)
            task.cancel()
        await other
        with pytest.raises(SessionNotFound):
            await store.get_session("ada", "s")

    async def test_close_finishes_what_is_queued(self, file: Path) -> None:
        """Jobs that are queued before the store is closed are on disk afterwards."""
        store = SqliteStore(file)
        with write_locked(file):
            task = asyncio.create_task(begin(store, "s", "hi", new=True))
            await asyncio.sleep(0)
            closing = asyncio.create_task(store.close())
            await asyncio.sleep(0)
        await closing
        assert 1 == (await task).number
        again = SqliteStore(file)
        assert 1 == (await again.get_session("ada", "s")).turn_count
        await again.close()

    async def test_closed_store(self, file: Path) -> None:
        """A closed store rejects reads and writes, and can be closed again."""
        store = SqliteStore(file)
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.check()
        with pytest.raises(StoreUnavailable):
            await begin(store, "s", "hi", new=True)

    async def test_the_event_loop_continues(self, store: SqliteStore, file: Path) -> None:
        """While a write waits for another process, reads and the event loop continue."""
        await store.add_key(key(1), event)
        with write_locked(file):
            task = asyncio.create_task(begin(store, "s", "hi", new=True))
            for _ in range(50):
                assert key(1) == await store.find_key(bytes([1]) * 32)
            assert not task.done()
        await task


class TestWriterQueue:
    """Tests of the order of writers of several processes."""

    async def test_the_first_waiter_writes_first(self, store: SqliteStore, file: Path) -> None:
        """Of two waiting writers, the first always writes first."""
        other = SqliteStore(file)
        for number in range(10):
            with write_locked(file):
                first = asyncio.create_task(begin(other, f"first {number}", "hi", new=True))
                await asyncio.sleep(0)
                _wait_for_the_next_writer(file)
                second = asyncio.create_task(begin(store, f"second {number}", "hi", new=True))
                await asyncio.sleep(0)
            done, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
            assert first in done
            await second
        await other.close()

    async def test_suspended_as_the_next_writer(self, store: SqliteStore, file: Path) -> None:
        """A process that is suspended as the next writer does not block other writers."""
        with Path(f"{file}-queue").open("rb") as queue:
            fcntl.flock(queue, fcntl.LOCK_EX)
            await converse(store, "s", "q", "a", new=True)


def _wait_for_the_next_writer(file: Path) -> None:
    """Returns once a writer holds the lock of the queue."""
    with Path(f"{file}-queue").open("rb") as queue:
        for _ in range(10_000):
            try:
                fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(queue, fcntl.LOCK_UN)
            time.sleep(0.001)
    pytest.fail("no writer waits at the head of the queue")
