"""The stores that a state folder has used: a store that is missing later is lost, and is never created anew."""

import json
import os
from pathlib import Path

KNOWN_STORES = "known-stores.json"
"""The file in the state folder: an object with the identity of each database, by its name."""


def known_identity(state_dir: Path, name: str) -> str | None:
    """Returns the identity of the store with this name when it was last used; None if it is new."""
    identity = _read(state_dir).get(name)
    return identity if isinstance(identity, str) else None


def remember(state_dir: Path, name: str, identity: str) -> None:
    """Records the identity of a store. Raises OSError."""
    known = _read(state_dir)
    if known.get(name) == identity:
        return
    import tempfile  # with shutil, 0.7 MB

    descriptor, draft = tempfile.mkstemp(dir=state_dir, prefix=KNOWN_STORES)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({**known, name: identity}, file)
    Path(draft).replace(state_dir / KNOWN_STORES)


def _read(state_dir: Path) -> dict[str, object]:
    try:
        known = json.loads((state_dir / KNOWN_STORES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
