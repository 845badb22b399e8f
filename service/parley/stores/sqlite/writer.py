"""The writer thread of a process: jobs that are queued together share one commit and one fsync."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

import apsw

from parley.core.errors import StoreUnavailable
from parley.core.ports.statistics import StoreStatistics
from parley.stores.sqlite.database import Database, wait_for_lock
from parley.stores.sqlite.jobs import Job, PartialWriteError, deliver, fail, run_in_savepoint, run_together
from parley.stores.sqlite.maintenance import Maintenance
from parley.stores.sqlite.writer_queue import WriterQueue

T = TypeVar("T")

_MAX_BATCH = 256
# How long jobs are collected while several arrive at a time. A commit costs the CPU time of about four jobs.
_COLLECT_SECONDS = 0.002
_CHECKPOINT_PAGES = 1000
# Processes that write or read all the time leave no moment in which the log could be written from its start again, and
# let it grow.
_LONG_PAGES = 2 * _CHECKPOINT_PAGES
_MAINTENANCE_BUSY_MS = 20


@dataclass(slots=True)
class Counts:
    """Counters of the writer.

    Attributes:
        commits: The committed transactions.
        jobs: The jobs that have run, failed jobs included.
    """

    commits: int = 0
    jobs: int = 0


class Writer:
    """Runs jobs in order of arrival. The future of a job resolves only after its commit."""

    def __init__(
        self, database: Database, writer_queue: WriterQueue, prepare: Callable[[apsw.Connection], None] = lambda _: None
    ) -> None:
        """Starts the thread.

        Args:
            database: The file.
            writer_queue: The order in which all writing processes write.
            prepare: Runs once per connection, in the transaction of its first jobs.
        """
        self.counts = Counts()
        self.statistics = StoreStatistics()
        self.is_failing = False  # whether the latest transaction, or check of the file, has failed
        self._database = database
        self._prepare = prepare
        self._prepared: apsw.Connection | None = None
        self._writer_queue = writer_queue
        self._maintenance = Maintenance()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._closing = False
        self._wal_pages = 0
        self._is_shared = False  # whether the latest batch had several jobs
        self._thread = Thread(target=self._run, name="parley-store-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[apsw.Connection], T], *, deletes: bool = False) -> asyncio.Future[T]:
        """Queues a job; a failure rolls back all of it.

        Cancelling the future skips the job if it has not started.

        Args:
            work: The job, which may run more than once and must therefore change only the database.
            deletes: Whether the job deletes conversations, so that the log is truncated soon afterwards, unless the
                result is 0 or empty.

        Returns:
            The result of the job.

        Raises:
            StoreUnavailable: The writer is closed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(Job(work, future, deletes))
        return future

    def submit_row(self, work: Callable[[apsw.Connection, Sequence[T]], None], row: T) -> asyncio.Future[None]:
        """Queues a job that one call of `work` runs for all rows of a transaction, before its other jobs.

        If `work` fails, it runs again for each row.

        Raises:
            StoreUnavailable: The writer is closed.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(Job(lambda db: work(db, (row,)), future, row=row, work_on_rows=work))
        return future

    def _put(self, job: Job) -> None:
        if self._closing:
            raise StoreUnavailable("the store is closed")
        self._queue.put(job)

    async def close(self) -> None:
        """Completes the queued jobs, then stops the thread and closes the database."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        stopping = False
        self._maintenance.schedule_truncation()  # an earlier process may have been killed before it truncated the log
        while not stopping and (first := self._next()) is not None:
            jobs: list[Job] = []
            if self._is_shared:
                time.sleep(_COLLECT_SECONDS)
            began = time.perf_counter()
            try:
                with self._transaction() as connection:
                    # Collected inside the transaction: jobs queued while another process wrote join this commit.
                    jobs, stopping = self._collect_batch(first)
                    self._perform(connection, jobs)
                self._prepared = connection
                self.is_failing = False
                self.statistics.record(len(jobs), time.perf_counter() - began)
            except Exception as error:  # noqa: BLE001 - reported by the jobs; the thread must survive
                jobs, stopping = (jobs, stopping) if jobs else self._collect_batch(first)
                fail(jobs, error)
                self.is_failing = True
            self.counts.jobs += len(jobs)
            self._is_shared = len(jobs) > 1
            deliver(jobs)
            if any(job.error is None and job.result for job in jobs if job.deletes):
                self._maintenance.schedule_truncation()
            self._checkpoint()
        self._database.close()
        self._writer_queue.close()

    def _next(self) -> Job | None:
        """Returns the next job, or None if the writer must end. Runs maintenance while the queue is empty."""
        while True:
            wait = self._maintenance.wait()
            if self._maintenance.is_overdue():
                self._maintain()
            try:
                return self._queue.get(timeout=wait)
            except Empty:
                self._maintain()

    def _maintain(self) -> None:
        """Runs one maintenance step. Does not wait for other processes, because jobs may arrive meanwhile."""
        try:
            with self._database.use() as connection:
                connection.set_busy_timeout(_MAINTENANCE_BUSY_MS)
                try:
                    self._maintenance.step(connection)
                finally:
                    connection.set_busy_handler(wait_for_lock)
        except StoreUnavailable:
            self._maintenance.postpone()

    def _perform(self, connection: apsw.Connection, jobs: Sequence[Job]) -> None:
        """Runs jobs so that a failed job rolls back only itself. A failure of the database fails all jobs."""
        try:
            self._make_ready(connection)
            run_together(connection, jobs)
        except PartialWriteError:
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            self._make_ready(connection)
            for job in jobs:
                run_in_savepoint(connection, job)

    def _make_ready(self, connection: apsw.Connection) -> None:
        """Runs `prepare` on a connection without a commit so far."""
        if connection is not self._prepared:
            self._prepare(connection)

    @contextmanager
    def _transaction(self) -> Iterator[apsw.Connection]:
        with self._database.use() as connection:
            connection.set_wal_hook(self._on_wal)
            self._writer_queue.acquire()
            try:
                connection.execute("BEGIN IMMEDIATE")
            finally:
                self._writer_queue.release()
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(apsw.Error):
                    connection.execute("ROLLBACK")
                raise
            self.counts.commits += 1

    def _collect_batch(self, first: Job) -> tuple[list[Job], bool]:
        """Returns the jobs of one batch, and whether the writer must end after it."""
        jobs: list[Job] = []
        job: Job | None = first
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
        """Checkpoints a long log. Runs after the futures are resolved, so that no caller waits for it."""
        if self._wal_pages < _CHECKPOINT_PAGES:
            return
        if self._wal_pages >= _LONG_PAGES:
            self._maintenance.schedule_truncation()
        self._wal_pages = 0
        with suppress(StoreUnavailable), self._database.use() as connection:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
