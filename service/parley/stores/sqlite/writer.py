"""One thread that writes for the whole process, so that jobs that wait together share one commit and one fsync."""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import apsw

from parley.core.errors import StoreUnavailable
from parley.stores.sqlite.database import OUTAGES, Database, wait_for_lock
from parley.stores.sqlite.upkeep import Maintenance

T = TypeVar("T")

_MAX_BATCH = 256
_CHECKPOINT_PAGES = 1000
_QUEUE_SECONDS = 1.0
_MAINTENANCE_BUSY_MS = 20
_QUEUE_POLL = 0.0005


@dataclass(slots=True)
class Counts:
    """What the writer has done: `commits` transactions with `jobs` jobs in them, failed ones included."""

    commits: int = 0
    jobs: int = 0


@dataclass(slots=True)
class _Job:
    work: Callable[[apsw.Connection], Any]
    future: asyncio.Future[Any]
    deletes: bool = False
    result: Any = None
    error: Exception | None = None

    def settle(self) -> None:
        """Tells the caller, in its event loop."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class _HalfDoneError(Exception):
    """A job failed and left behind what it had written."""


class Writer:
    """Runs jobs in the order in which they came. A job's future resolves only after the commit that holds it."""

    def __init__(
        self, database: Database, queue_file: Path, prepare: Callable[[apsw.Connection], None] = lambda _: None
    ) -> None:
        """Starts the thread. `queue_file` is shared by all processes that write. Raises StoreUnavailable.

        `prepare` is run before the first jobs on every connection to the file, in their transaction.
        """
        self.counts = Counts()
        self._database = database
        self._prepare = prepare
        self._prepared: apsw.Connection | None = None
        self._writer_queue = _WriterQueue(queue_file)
        self._maintenance = Maintenance()
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._closing = False
        self._wal_pages = 0
        self._thread = Thread(target=self._run, name="parley-store-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[apsw.Connection], T], *, deletes: bool = False) -> asyncio.Future[T]:
        """Queues a job, whose failure undoes all of it. It may be run again, so it must touch nothing but the database.

        A caller that is cancelled before its job begins has it left out; one that is cancelled later has it done all
        the same. One that `deletes` conversations has the log truncated soon after. Raises StoreUnavailable once
        closed, and so does the future.
        """
        if self._closing:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Job(work, future, deletes))
        return future

    async def close(self) -> None:
        """Finishes what is queued, then stops the thread and closes the database."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        stopping = False
        self._maintenance.record_deletion()  # of a process that was killed before it had truncated the log
        while not stopping and (first := self._next()) is not None:
            jobs: list[_Job] = []
            try:
                with self._transaction() as connection:
                    # Taken only now: what came while another process wrote joins this commit.
                    jobs, stopping = self._collect_batch(first)
                    self._perform(connection, jobs)
                self._prepared = connection
            except Exception as error:  # noqa: BLE001 - it belongs to the jobs, and the thread must live
                jobs, stopping = (jobs, stopping) if jobs else self._collect_batch(first)
                _fail(jobs, error)
            self.counts.jobs += len(jobs)
            _deliver(jobs)
            if any(job.deletes and job.error is None and job.result for job in jobs):
                self._maintenance.record_deletion()
            self._checkpoint()
        self._database.close()
        self._writer_queue.close()

    def _next(self) -> _Job | None:
        """Returns the next job; while there is none, keeps the file small. None where the writer is to end."""
        while True:
            wait = self._maintenance.wait()
            if self._maintenance.is_overdue():
                self._maintain()
            try:
                return self._queue.get(timeout=wait)
            except Empty:
                self._maintain()

    def _maintain(self) -> None:
        """Makes one step of the upkeep. It does not wait for other processes: jobs may come meanwhile."""
        try:
            with self._database.use() as connection:
                connection.set_busy_timeout(_MAINTENANCE_BUSY_MS)
                try:
                    self._maintenance.step(connection)
                finally:
                    connection.set_busy_handler(wait_for_lock)
        except StoreUnavailable:
            self._maintenance.postpone()

    def _perform(self, connection: apsw.Connection, jobs: Sequence[_Job]) -> None:
        """Runs jobs so that one's failure undoes nothing but itself. A failing database fails them all."""
        try:
            self._make_ready(connection)
            _try(connection, jobs)
        except _HalfDoneError:
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            self._make_ready(connection)
            for job in jobs:
                _try_apart(connection, job)

    def _make_ready(self, connection: apsw.Connection) -> None:
        """Prepares a connection in which nothing has been committed yet."""
        if connection is not self._prepared:
            self._prepare(connection)

    @contextmanager
    def _transaction(self) -> Iterator[apsw.Connection]:
        with self._database.use() as connection:
            connection.set_wal_hook(self._on_wal)
            with self._writer_queue.queue():
                connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(apsw.Error):
                    connection.execute("ROLLBACK")
                raise
            self.counts.commits += 1

    def _collect_batch(self, first: _Job) -> tuple[list[_Job], bool]:
        """Returns the jobs of one batch, and whether the last of all has been queued."""
        jobs: list[_Job] = []
        job: _Job | None = first
        while job is not None:
            jobs.append(job)
            if len(jobs) == _MAX_BATCH:
                return jobs, False
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs, False
        return jobs, True

    def _on_wal(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Moves the log into the file when it has grown; after the callers were told, so that none waits for it."""
        if self._wal_pages < _CHECKPOINT_PAGES:
            return
        self._wal_pages = 0
        with suppress(StoreUnavailable), self._database.use() as connection:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


def _try(connection: apsw.Connection, jobs: Sequence[_Job]) -> None:
    """Runs jobs without a savepoint for each, which would cost as much as a statement that writes.

    Raises _HalfDoneError where one failed after it had written.
    """
    for job in jobs:
        before = connection.total_changes()
        _run(connection, job)
        if job.error is not None and connection.total_changes() != before:
            raise _HalfDoneError


def _try_apart(connection: apsw.Connection, job: _Job) -> None:
    connection.execute("SAVEPOINT job")
    _run(connection, job)
    if job.error is not None:
        connection.execute("ROLLBACK TO job")
    connection.execute("RELEASE job")


def _run(connection: apsw.Connection, job: _Job) -> None:
    """Does the work, unless its caller left before. Raises what is about the database, and not about the job."""
    job.result = job.error = None
    if job.future.cancelled():
        return
    try:
        job.result = job.work(connection)
    except Exception as error:
        if not connection.in_transaction or isinstance(error, OUTAGES):
            raise
        job.error = error


def _fail(jobs: list[_Job], error: Exception) -> None:
    """Gives the jobs of a batch the reason why none of them is on disk; those that failed by themselves keep theirs."""
    cause = error.cause if isinstance(error, StoreUnavailable) else repr(error)
    for job in jobs:
        job.error = job.error or StoreUnavailable(cause or str(error))


def _deliver(jobs: list[_Job]) -> None:
    """Wakes every event loop once, however many of its jobs are done."""
    loops: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in jobs:
        loops.setdefault(job.future.get_loop(), []).append(job)
    for loop, settled in loops.items():
        # A loop that is closed has nobody left to tell.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, settled)


def _settle(jobs: list[_Job]) -> None:
    for job in jobs:
        job.settle()


class _WriterQueue:
    """Makes the writers of several processes take turns.

    SQLite's write lock goes to whoever asks at the right moment, which is mostly the process that has just given it
    back. So one waiter at a time asks for it; the others wait for that place, the last writer with them. A process that
    was stopped in that place costs the others a short wait, and nothing else.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"{path}: it cannot be made ({error.strerror}); check its folder") from error

    @contextmanager
    def queue(self) -> Iterator[None]:
        """Holds the place of the next writer."""
        deadline = time.monotonic() + _QUEUE_SECONDS
        while not self._try() and time.monotonic() < deadline:
            time.sleep(_QUEUE_POLL)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._file)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
