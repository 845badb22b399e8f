"""The jobs of the writer: how those of one transaction run, fail and are reported."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from parley.core.errors import StoreUnavailable
from parley.stores.sqlite.database import OUTAGES, is_missing_table

_MIN_ROWS = 2


@dataclass(slots=True)
class Job:
    """A job of the writer.

    Attributes:
        work: Reads and writes the database.
        future: The caller's, which gets the result.
        deletes: Whether it deletes conversations.
        row: The argument of `work_on_rows`.
        work_on_rows: Does the same as `work` for the rows of several jobs; None if there is no such function.
        result: The result of `work`.
        error: The error of `work`.
    """

    work: Callable[[apsw.Connection], Any]
    future: asyncio.Future[Any]
    deletes: bool = False
    row: Any = None
    work_on_rows: Callable[[apsw.Connection, Sequence[Any]], None] | None = None
    result: Any = None
    error: Exception | None = None

    def settle(self) -> None:
        """Resolves the caller's future. Runs in the caller's event loop."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class PartialWriteError(Exception):
    """A job failed after it had written."""


def run_together(connection: apsw.Connection, jobs: Sequence[Job]) -> None:
    """Runs jobs without a savepoint for each, because a savepoint costs as much as a write.

    Raises:
        PartialWriteError: A job failed after it had written.
    """
    for job in _run_rows(connection, jobs):
        before = connection.total_changes()
        _run(connection, job)
        if job.error is not None and connection.total_changes() != before:
            raise PartialWriteError


def _run_rows(connection: apsw.Connection, jobs: Sequence[Job]) -> Sequence[Job]:
    """Runs the jobs that are rows, if there are several, and returns the others.

    Each statement releases the interpreter lock, and waits for it afterwards while the event loop is busy.

    Raises:
        PartialWriteError: The work failed.
    """
    rows = [job for job in jobs if job.work_on_rows is not None and not job.future.cancelled()]
    if len(rows) < _MIN_ROWS or len({job.work_on_rows for job in rows}) > 1:
        return jobs
    try:
        rows[0].work_on_rows(connection, [job.row for job in rows])  # type: ignore[misc] # not None
    except Exception as error:
        if _concerns_database(connection, error):
            raise
        raise PartialWriteError from error
    return [job for job in jobs if job.work_on_rows is None]


def run_in_savepoint(connection: apsw.Connection, job: Job) -> None:
    """Runs a job so that its failure rolls back only itself."""
    connection.execute("SAVEPOINT job")
    _run(connection, job)
    if job.error is not None:
        connection.execute("ROLLBACK TO job")
    connection.execute("RELEASE job")


def _run(connection: apsw.Connection, job: Job) -> None:
    """Runs a job unless its caller was cancelled. Raises errors that concern the database and not the job."""
    job.result = job.error = None
    if job.future.cancelled():
        return
    try:
        job.result = job.work(connection)
    except Exception as error:
        if _concerns_database(connection, error):
            raise
        job.error = error


def _concerns_database(connection: apsw.Connection, error: Exception) -> bool:
    return not connection.in_transaction or isinstance(error, OUTAGES) or is_missing_table(error)


def fail(jobs: list[Job], error: Exception) -> None:
    """Fails all jobs of a batch that was not committed; jobs that failed by themselves keep their error."""
    cause = error.cause if isinstance(error, StoreUnavailable) else repr(error)
    for job in jobs:
        job.error = job.error or StoreUnavailable(cause or str(error))


def deliver(jobs: list[Job]) -> None:
    """Wakes each event loop once for all of its jobs."""
    loops: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        loops.setdefault(job.future.get_loop(), []).append(job)
    for loop, settled in loops.items():
        try:
            loop.call_soon_threadsafe(_settle, settled)
        except RuntimeError:
            continue  # the loop is closed


def _settle(jobs: list[Job]) -> None:
    for job in jobs:
        job.settle()
