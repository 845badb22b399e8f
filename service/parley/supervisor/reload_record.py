"""The outcome of the last reload, in the state folder, where `parley reload` reads it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parley.supervisor import folders

_FILE = "reload.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A reload that runs or has ended.

    Attributes:
        number: Identifies the reload; those of later reloads are higher.
        is_done: Whether it has ended.
        error: Why the old configuration stays in use; None after a success.
        changes: What the new configuration changes, by names; it has no values.
    """

    number: int = 0
    is_done: bool = True
    error: str | None = None
    changes: Sequence[str] = ()

    @property
    def began(self) -> int | None:
        """When it began, in Unix seconds; None if there was no reload. The number is made of it."""
        return self.number // 10**9 or None


def read(state_dir: Path) -> Outcome:
    """Returns the last reload; one with the number 0 if there was none."""
    try:
        return Outcome(**json.loads((state_dir / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Outcome()


def begin(state_dir: Path) -> Callable[[str | None, Sequence[str]], None]:
    """Records that a reload has begun. Returns a function that records its end, with an error or the changes."""
    number = max(time.time_ns(), read(state_dir).number + 1)  # the clock may step back
    _write(state_dir, Outcome(number, is_done=False))
    return lambda error, changes: _write(state_dir, Outcome(number, error=error, changes=changes))


def changes(before: str, after: str) -> list[str]:
    """Returns what differs between two configurations as JSON, in words: `model b added`, `limits changed`."""
    old, new = json.loads(before), json.loads(after)
    found = []
    for section in sorted(old.keys() | new.keys()):
        one, other = old.get(section), new.get(section)
        if one == other:
            continue
        parts = _by_name(one), _by_name(other)
        found += _named(section.removesuffix("s"), *parts) if all(parts) else [f"{section} changed"]
    return found


def _by_name(section: Any) -> Mapping[str, Any]:
    """Returns the parts of a section by name or id; nothing if it has no names."""
    if isinstance(section, list) and all(isinstance(part, dict) and "id" in part for part in section):
        return {part["id"]: part for part in section}
    if isinstance(section, dict) and all(isinstance(part, dict) for part in section.values()):
        return section
    return {}


def _named(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    words = {name: "added" for name in new if name not in old} | {name: "removed" for name in old if name not in new}
    words |= {name: "changed" for name in old if name in new and old[name] != new[name]}
    return [f"{kind} {name} {word}" for name, word in words.items()] or [f"{kind}s reordered"]


def _write(state_dir: Path, outcome: Outcome) -> None:
    """Replaces the file; a state folder that cannot be written does not fail the reload."""
    with suppress(OSError):
        folders.write_private(state_dir / _FILE, json.dumps(asdict(outcome)))
