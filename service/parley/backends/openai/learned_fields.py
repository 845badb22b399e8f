"""Field support of a backend's models, learned from responses and shared by the workers of a machine in a file."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known about one model."""

    field: str | None = None
    """Its field name for reasoning; None if unknown."""
    rejected: frozenset[str] = frozenset()
    """Request fields that it rejects."""
    required: bool = False
    """Whether it requires the reasoning of earlier turns."""


_NOTHING = Learned()
MAX_MODELS = 1000
"""The number of models that are remembered: callers choose the names of a wildcard. The latest ones are kept."""


class LearnedFields:
    """What is known about each model of a backend.

    Errors of the file are ignored: lost entries are learned again.

    Args:
        path: The shared file; None keeps the entries in memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._read_at = 0
        self._models: dict[str, Learned] = {}

    def get(self, model: str) -> Learned:
        """Returns what is known about a model."""
        self._load()
        return self._models.get(model, _NOTHING)

    def update(self, model: str, change: Callable[[Learned], Learned]) -> None:
        """Updates the entry of a model. Concurrent updates by two workers may lose one; it is learned again."""
        known = self.get(model)
        latest = [(name, one) for name, one in self._models.items() if name != model][1 - MAX_MODELS :]
        self._models = {**dict(latest), model: change(known)}
        if self._path is not None:
            with suppress(OSError):
                _replace(
                    self._path, orjson.dumps({name: asdict(one) for name, one in self._models.items()}, default=list)
                )

    def _load(self) -> None:
        if self._path is None:
            return
        with suppress(OSError, ValueError, TypeError, AttributeError):
            changed = self._path.stat().st_mtime_ns
            if changed != self._read_at:
                read = orjson.loads(self._path.read_bytes())
                self._models = {name: _learned(one) for name, one in read.items()}
                self._read_at = changed


def _learned(data: Any) -> Learned:
    return Learned(data["field"], frozenset(data["rejected"]), bool(data["required"]))


def _replace(path: Path, data: bytes) -> None:
    """Replaces a file atomically: a reader sees the old content or the new one."""
    import tempfile  # with shutil, 0.7 MB

    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(name).replace(path)
