"""What the workers of a machine have learned about the fields of a backend's models, in a file that they share."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of one model: its name for reasoning, fields that it refuses, whether it demands reasoning."""

    field: str | None = None
    refused: frozenset[str] = frozenset()
    required: bool = False


_NOTHING = Learned()


class LearnedFields:
    """What is known of each model of a backend; kept in the file `path`, or in memory alone where that is None.

    A file that cannot be read or written is no failure: what it would say is learned again.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._read_at = 0
        self._models: dict[str, Learned] = {}

    def of(self, model: str) -> Learned:
        """Returns what is known of a model."""
        self._load()
        return self._models.get(model, _NOTHING)

    def change(self, model: str, change: Callable[[Learned], Learned]) -> None:
        """Changes what is known of a model. Of two workers that do so at once, one may have to learn again."""
        self._models = {**self._models, model: change(self.of(model))}
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
    return Learned(data["field"], frozenset(data["refused"]), bool(data["required"]))


def _replace(path: Path, data: bytes) -> None:
    """Writes a file as a whole: a reader sees the old text or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(name).replace(path)
