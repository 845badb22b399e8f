"""Time for an SQLite file. A step of the wall clock neither ends a lease nor deletes anything.

Three times, each in Unix seconds while the wall clock is right:

- The wall clock, for what is only shown or sorted by: when a session was made, when its latest turn began.
- The time of leases and limits advances with the machine's uptime and with nothing else. Every process of the machine
  reads the same one. When the machine has started anew, the leases from before are void.
- The time of retention advances with the uptime, too. A step of the wall clock forward does not advance it; a step
  back sets it back. So nothing is deleted before its age has been measured. Time in which the machine was off looks
  like a step. After 24 measured hours without another step the wall clock is believed, and retention catches up.
"""

import os
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import NamedTuple

import apsw
import structlog

_STEP_SECONDS = 2.0
_TRUST_AFTER_SECONDS = 24 * 3600.0
_DRIFT = 5e-4  # of a clock that NTP corrects without a step, per second
_WRITE_SECONDS = 60.0  # how often the row is written where nothing has changed
_UPTIME = Path("/proc/uptime")
_BOOT = Path("/proc/sys/kernel/random/boot_id")

_READ = "SELECT boot, seen, leases, wall, retention, unverified FROM clock"
_WRITE = """
INSERT INTO clock (id, boot, seen, leases, wall, retention, unverified) VALUES (1, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET boot = excluded.boot, seen = excluded.seen, leases = excluded.leases, wall = excluded.wall,
  retention = excluded.retention, unverified = excluded.unverified
"""
_TOUCH = "UPDATE clock SET id = id"
_VOID = (
    "UPDATE sessions SET lease_expires = 0 WHERE lease_expires IS NOT NULL",
    "UPDATE claims SET lease_expires = 0 WHERE lease_expires IS NOT NULL",
)

_log = structlog.get_logger()


class Times(NamedTuple):
    """The times that a job writes: the wall clock's, and that of leases and limits, from which a lease is to last."""

    wall: float
    lease: float
    lease_seconds: float = 0.0

    @property
    def lease_expires(self) -> float:
        """When a lease that begins now is over."""
        return self.lease + self.lease_seconds


class _Row(NamedTuple):
    boot: str
    seen: float
    leases: float
    wall: float
    retention: float
    unverified: float


class FileClock:
    """Reads the times of one file. Methods that take a connection belong inside a transaction that writes.

    Args:
        wall: Returns the wall clock in Unix seconds; None for the machine's.
        uptime: Returns seconds that no step of the wall clock changes. Default: the machine's uptime; where only `wall`
            is given, as in tests, that one.
        boot: Names the start of the machine that the uptime belongs to. Default: the kernel's id.
    """

    def __init__(
        self,
        wall: Callable[[], float] | None = None,
        uptime: Callable[[], float] | None = None,
        boot: str | None = None,
    ) -> None:
        self.wall = wall or time.time
        self._uptime = uptime or wall or machine_uptime
        self._boot = boot or ("given" if wall and not uptime else _machine_boot())
        self._leases: float | None = None
        self._reported: float | None = None

    def load(self, db: apsw.Connection) -> None:
        """Reads the file's row, or makes it anew after a start of the machine."""
        row = _read(db)
        if row is None or row.boot != self._boot:
            row = self._start(db, row)
        self._leases = row.leases

    def lease_time(self, db: apsw.Connection) -> float:
        """Returns the time of leases and limits; infinity where no process can hold a lease. Reading is enough."""
        if self._leases is None:
            row = _read(db)
            return inf if row is None or row.boot != self._boot else self._uptime() + row.leases
        return self._uptime() + self._leases

    def retention_time(self, db: apsw.Connection) -> float:
        """Looks at the wall clock, and returns the time that ages are measured by."""
        uptime, row = self._uptime(), _read(db)
        if row is None:  # the file was replaced by another one
            return -inf
        wall = self.wall() - uptime
        passed = uptime - row.seen
        stepped = _is_step(wall, row.wall, passed)
        unverified = max(0.0, row.unverified - passed)
        retention = wall if unverified == 0 else row.retention
        if stepped:
            self._report(wall, row.wall)
            unverified, retention = _TRUST_AFTER_SECONDS, min(row.retention, wall)
        if stepped or passed >= _WRITE_SECONDS:
            db.execute(_WRITE, (row.boot, uptime, row.leases, wall, retention, unverified))
        return uptime + retention

    @staticmethod
    def touch(db: apsw.Connection) -> None:
        """Writes to the file, and changes nothing in it."""
        db.execute(_TOUCH)

    def _report(self, wall: float, before: float) -> None:
        """Logs a step, once for each position of this process's wall clock."""
        if self._reported is not None and not _is_step(wall, self._reported, 0.0):
            return
        self._reported = wall
        _log.error(
            "the wall clock was stepped: nothing is deleted for its age before that age has been measured",
            seconds=round(wall - before, 1),
        )

    def _start(self, db: apsw.Connection, before: _Row | None) -> _Row:
        """Makes the row of this start of the machine. Every process that held a lease before it has ended."""
        uptime = self._uptime()
        wall = self.wall() - uptime
        row = _Row(self._boot, uptime, wall, wall, wall, 0.0)
        if before is not None:
            retention = min(wall, before.seen + before.retention - uptime)
            row = row._replace(retention=retention, unverified=before.unverified or _TRUST_AFTER_SECONDS)
            for statement in _VOID:
                db.execute(statement)
        db.execute(_WRITE, row)
        return row


def _is_step(wall: float, before: float, passed: float) -> bool:
    """Tells whether the wall clock has moved against the uptime by more than drift explains."""
    return abs(wall - before) > _STEP_SECONDS + passed * _DRIFT


def machine_uptime() -> float:
    """Returns the seconds since the machine started, time asleep included, in steps of 10 ms.

    Read from the kernel's file: a process whose clocks are faked (libfaketime) reads what the others read.
    """
    try:
        return float(os.pread(_uptime_file(), 32, 0).split()[0])
    except OSError:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


_opened: list[int] = []


def _uptime_file() -> int:
    if not _opened:
        _opened.append(os.open(_UPTIME, os.O_RDONLY | os.O_CLOEXEC))
    return _opened[0]


def _machine_boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def _read(db: apsw.Connection) -> _Row | None:
    found = db.execute(_READ).fetchall()
    return _Row(*found[0]) if found else None  # type: ignore[arg-type]
