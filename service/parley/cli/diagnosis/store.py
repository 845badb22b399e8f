"""Checks the store, without creating or upgrading it."""

import shutil
from pathlib import Path

from parley.cli.diagnosis.finding import Finding
from parley.config import Config, PostgresConfig
from parley.core.errors import StoreUnavailable
from parley.stores.open import is_new, may_exist, open_known_store, store_file

_CHECK = "store"
_LITTLE, _TOO_LITTLE = 1 << 30, 100 << 20  # bytes


async def check(config: Config, folder: Path) -> list[Finding]:
    """Returns the findings on the store of a state folder."""
    return [await _available(config, folder), *_space(config, folder)]


async def _available(config: Config, folder: Path) -> Finding:
    name = store_file(config.store, folder) or "PostgreSQL"
    if not may_exist(config.store, folder) and is_new(config.store, folder):
        return Finding(_CHECK, "ok", f"{name} does not exist yet; `parley up` creates it")
    try:
        async with open_known_store(config.store, folder) as store:
            await store.check()
    except StoreUnavailable as error:
        cause = error.cause or error.message
        if isinstance(config.store, PostgresConfig) and is_new(config.store, folder) and "no tables" in cause:
            return Finding(_CHECK, "ok", "PostgreSQL has no tables of Parley yet; `parley up` creates them")
        # Most causes name their remedy.
        return Finding(_CHECK, "failed", cause, "" if ";" in cause else _remedy(config))
    return Finding(_CHECK, "ok", f"{name} can be read and written, and its schema fits")


def _remedy(config: Config) -> str:
    if isinstance(config.store, PostgresConfig):
        return "start the server, and check `store.url`, the network and the rights of its user"
    return "check `store.path` and --state-dir, and the rights of the file; docs/operating.md describes restoring it"


def _space(config: Config, folder: Path) -> list[Finding]:
    """Returns a finding on the free space of the disk of SQLite's file."""
    file = store_file(config.store, folder)
    if file is None:
        return []
    place = next(parent for parent in file.parents if parent.exists())
    free = shutil.disk_usage(place).free
    message = f"the disk of {place} has {free / (1 << 30):.1f} GiB free"
    if free >= _LITTLE:
        return [Finding(_CHECK, "ok", message)]
    remedy = "free space, or move the store with `store.path` or --state-dir"
    return [Finding(_CHECK, "failed" if free < _TOO_LITTLE else "warning", message, remedy)]
