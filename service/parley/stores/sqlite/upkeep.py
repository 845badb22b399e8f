"""What keeps a file small, and free of deleted text, while nobody waits for the writer.

Deleted rows are overwritten in the file (`secure_delete`), and stay in the write-ahead log until a checkpoint
truncates it. Free pages are given back to the disk in small steps (`auto_vacuum = INCREMENTAL`); between two steps
other jobs run.
"""

import time

import apsw

_DELAY_SECONDS = 1.0
_STEP_PAGES = 128
_KEPT_PAGES = 256  # free pages that stay in the file, for what is written next


class Maintenance:
    """Decides when one writer's file needs a step. All methods belong to the writer's thread."""

    def __init__(self) -> None:
        self._due: float | None = None
        self._shrinks = False

    def record_deletion(self) -> None:
        """Asks for a truncated log, soon."""
        if self._due is None:
            self._due = time.monotonic() + _DELAY_SECONDS

    def wait(self) -> float | None:
        """Returns how many seconds to wait for jobs before `step`; None where nothing is to be done."""
        if self._shrinks:
            return 0.0
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def is_overdue(self) -> bool:
        """Tells whether a step is to be made although jobs are waiting."""
        return self._due is not None and time.monotonic() > self._due + _DELAY_SECONDS

    def step(self, db: apsw.Connection) -> None:
        """Truncates the log, or gives a few free pages back. Outside of a transaction."""
        if self._shrinks:
            self._shrink(db)
        elif self._due is not None:
            self._truncate(db)

    def postpone(self) -> None:
        """Tries again later: another process is at work in the file, or it failed."""
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
            self.record_deletion()  # the file itself becomes shorter by a checkpoint


def _free_pages(db: apsw.Connection) -> int:
    return int(db.pragma("freelist_count"))
