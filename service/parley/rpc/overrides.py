"""What an administrator has set for all workers: a file of the run folder, so that later workers have it, too."""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

from parley.core.routing.overrides import TargetOverrides
from parley.logs import Level


@dataclass(frozen=True, slots=True)
class Overrides:
    """The settings of an administrator.

    Attributes:
        targets: Those of the targets.
        log_level: The log level; None for the level that Parley was started with.
        log_level_until: When the level of the start holds again, in Unix seconds; None for no end.
    """

    targets: TargetOverrides = field(default_factory=TargetOverrides)
    log_level: Level | None = None
    log_level_until: float | None = None

    def level(self) -> Level | None:
        """Returns the log level that holds now; None for the level that Parley was started with."""
        is_over = self.log_level_until is not None and time.time() >= self.log_level_until
        return None if is_over else self.log_level

    def to_json(self) -> str:
        """Returns the content of the file."""
        return json.dumps(
            {
                "opened": sorted(self.targets.opened),
                "closed": dict(self.targets.closed),
                "weights": dict(self.targets.weights),
                "log_level": self.log_level,
                "log_level_until": self.log_level_until,
            }
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Overrides":
        """Reads the content of the file."""
        targets = TargetOverrides(frozenset(values["opened"]), values["closed"], values["weights"])
        return cls(targets, values["log_level"], values["log_level_until"])


class OverridesFile:
    """The file of the overrides, which the workers of a Parley share.

    If the run folder was lost, the next worker that looks writes the file again.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._current = Overrides()
        self._version: tuple[int, int] | None = None

    def read(self) -> Overrides:
        """Returns the overrides. Reads the file only if it has changed."""
        try:
            version = self._stat()
            if version != self._version:
                self._current = Overrides.from_json(json.loads(self._path.read_text(encoding="utf-8")))
                self._version = version
        except FileNotFoundError:
            if self._version is not None:
                self._write(self._current)
        return self._current

    def update(self, change: Callable[[Overrides], Overrides]) -> Overrides:
        """Changes the overrides, one worker at a time. Returns them."""
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            flock(descriptor, LOCK_EX)
            self._write(change(self.read()))
        finally:
            os.close(descriptor)
        return self._current

    def _write(self, overrides: Overrides) -> None:
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with suppress(FileNotFoundError):  # the run folder is lost, and made again within a second
            draft.write_text(overrides.to_json(), encoding="utf-8")
            draft.replace(self._path)
            self._version = self._stat()
        self._current = overrides

    def _stat(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_ino, status.st_mtime_ns


def open_target(name: str) -> Callable[[Overrides], Overrides]:
    """Returns the change that opens the breaker of a target."""
    return lambda old: replace(old, targets=replace(old.targets, opened=old.targets.opened | {name}))


def close_target(name: str) -> Callable[[Overrides], Overrides]:
    """Returns the change that closes the breakers of a target."""
    closed = {name: time.time()}

    def change(old: Overrides) -> Overrides:
        targets = replace(old.targets, opened=old.targets.opened - {name}, closed={**old.targets.closed, **closed})
        return replace(old, targets=targets)

    return change


def set_weight(name: str, weight: float | None) -> Callable[[Overrides], Overrides]:
    """Returns the change that sets the weight of a target; None for the configured one."""

    def change(old: Overrides) -> Overrides:
        weights = {**old.targets.weights, name: weight}
        kept = {target: value for target, value in weights.items() if value is not None}
        return replace(old, targets=replace(old.targets, weights=kept))

    return change


def set_log_level(level: Level | None, until: float | None) -> Callable[[Overrides], Overrides]:
    """Returns the change of the log level."""
    return lambda old: replace(old, log_level=level, log_level_until=until)
