"""The clocks of an SQLite file. A step of the wall clock neither ends a lease nor deletes anything.

There are three clocks, each in Unix seconds as long as the wall clock is correct:

- The wall clock, for times that are only displayed or sorted by: the creation of a session, the start of a turn.
- The lease clock, for leases and limits, advances only with the machine's uptime. It is the same for all processes of
  the machine. A reboot expires all earlier leases.
- The retention clock also advances with the uptime. A forward step of the wall clock does not advance it; a backward
  step sets it back. Data is therefore deleted only after its age has been measured. Time during which the machine was
  off looks like a step. After 24 measured hours without another step, the retention clock is set to the wall clock.
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
_DRIFT = 5e-4  # seconds per second that NTP may correct without a step
_WRITE_SECONDS = 60.0  # the interval at which the row is written without a change
_UPTIME = Path("/proc/uptime")
_BOOT = Path("/proc/sys/kernel/random/boot_id")

_READ = "SELECT boot, seen, leases, wall, retention, unverified FROM clock"
_WRITE = """
INSERT INTO clock (id, boot, seen, leases, wall, retention, unverified) VALUES (1, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET boot = excluded.boot, seen = excluded.seen, leases = excluded.leases, wall = excluded.wall,
  retention = excluded.retention, unverified = excluded.unverified
"""
_TOUCH = "UPDATE clock SET id = id"
_EXPIRE_LEASES = (
    "UPDATE sessions SET lease_expires = 0 WHERE lease_expires IS NOT NULL",
    "UPDATE claims SET lease_expires = 0 WHERE lease_expires IS NOT NULL",
    "UPDATE running_calls SET lease_expires = 0",
)

_log = structlog.get_logger()


class Times(NamedTuple):
    """The times that a job writes.

    Attributes:
        wall: The wall clock.
        lease: The lease clock.
        lease_seconds: The duration of a new lease.
    """

    wall: float
    lease: float
    lease_seconds: float = 0.0

    @property
    def lease_expires(self) -> float:
        """The expiry of a lease that begins now."""
        return self.lease + self.lease_seconds


class _Row(NamedTuple):
    boot: str
    seen: float
    leases: float
    wall: float
    retention: float
    unverified: float


class FileClock:
    """The clocks of one file. Methods with a connection must run inside a write transaction.

    Args:
        wall: Returns the wall clock in Unix seconds; None for the machine's.
        uptime: Returns seconds that are unaffected by steps of the wall clock. Default: `wall` if given, as in tests,
            otherwise the machine's uptime.
        boot: Identifies the boot that the uptime counts from. Default: the kernel's boot id.
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
        """Reads the row of the file, or replaces it after a reboot."""
        row = _read(db)
        if row is None or row.boot != self._boot:
            row = self._start(db, row)
        self._leases = row.leases

    def lease_time(self, db: apsw.Connection) -> float:
        """Returns the lease clock; infinity if no process can hold a lease. A read transaction suffices."""
        if self._leases is None:
            row = _read(db)
            return inf if row is None or row.boot != self._boot else self._uptime() + row.leases
        return self._uptime() + self._leases

    def retention_time(self, db: apsw.Connection) -> float:
        """Compares the wall clock with the uptime, and returns the retention clock."""
        uptime, row = self._uptime(), _read(db)
        if row is None:  # another file has replaced this one
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
        """Writes to the file without changing data."""
        db.execute(_TOUCH)

    def _report(self, wall: float, before: float) -> None:
        """Logs a step once, even if it is found again."""
        if self._reported is not None and not _is_step(wall, self._reported, 0.0):
            return
        self._reported = wall
        _log.error(
            "the wall clock was stepped: data is deleted only after its age has been measured",
            seconds=round(wall - before, 1),
        )

    def _start(self, db: apsw.Connection, before: _Row | None) -> _Row:
        """Writes the row of this boot and expires the leases of processes from before."""
        uptime = self._uptime()
        wall = self.wall() - uptime
        row = _Row(self._boot, uptime, wall, wall, wall, 0.0)
        if before is not None:
            retention = min(wall, before.seen + before.retention - uptime)
            row = row._replace(retention=retention, unverified=before.unverified or _TRUST_AFTER_SECONDS)
            for statement in _EXPIRE_LEASES:
                db.execute(statement)
        db.execute(_WRITE, row)
        return row


def _is_step(wall: float, before: float, passed: float) -> bool:
    """Returns whether the wall clock has moved relative to the uptime by more than the drift."""
    return abs(wall - before) > _STEP_SECONDS + passed * _DRIFT


def machine_uptime() -> float:
    """Returns the seconds since boot, including suspended time, with a resolution of 10 ms.

    Reads `/proc/uptime`, so that a process under libfaketime gets the same value as other processes.
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
