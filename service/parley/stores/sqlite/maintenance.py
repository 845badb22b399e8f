"""Maintenance of a file while the writer is idle: removes deleted text and shrinks the file.

Deleted rows are overwritten in the file (`secure_delete`), but remain in the write-ahead log until a checkpoint
truncates it. Free pages are returned to the file system in small steps (`auto_vacuum = INCREMENTAL`), between which
other jobs run.
"""

import time

import apsw

_DELAY_SECONDS = 1.0
_STEP_PAGES = 128
_KEPT_PAGES = 256  # free pages that remain in the file for the next writes


class Maintenance:
    """Schedules and runs the maintenance steps of one writer. All methods run in the writer's thread."""

    def __init__(self) -> None:
        self._due: float | None = None
        self._shrinks = False

    def schedule_truncation(self) -> None:
        """Schedules a truncation of the log."""
        if self._due is None:
            self._due = time.monotonic() + _DELAY_SECONDS

    def wait(self) -> float | None:
        """Returns the seconds to wait for jobs before `step`; None if no step is due."""
        if self._shrinks:
            return 0.0
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def is_overdue(self) -> bool:
        """Returns whether a step must run even if jobs are waiting."""
        return self._due is not None and time.monotonic() > self._due + _DELAY_SECONDS

    def step(self, db: apsw.Connection) -> None:
        """Truncates the log, or releases a few free pages. Runs outside of a transaction."""
        if self._shrinks:
            self._shrink(db)
        elif self._due is not None:
            self._truncate(db)

    def postpone(self) -> None:
        """Schedules another attempt after a failed step, or while another process uses the file."""
        self._shrinks = False
        self._due = time.monotonic() + _DELAY_SECONDS

    def _truncate(self, db: apsw.Connection) -> None:
        self._due = None
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._shrinks = db.pragma("auto_vacuum") == 2 and _free_pages(db) > _KEPT_PAGES  # noqa: PLR2004 - INCREMENTAL

    def _shrink(self, db: apsw.Connection) -> None:
        before = _free_pages(db)
        db.execute(f"PRAGMA incremental_vacuum({_STEP_PAGES})").fetchall()
        after = _free_pages(db)
        if after <= _KEPT_PAGES or after == before:
            self._shrinks = False
            self.schedule_truncation()  # only a checkpoint shortens the file itself


def _free_pages(db: apsw.Connection) -> int:
    return int(db.pragma("freelist_count"))
