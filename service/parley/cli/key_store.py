"""The store of API keys, as commands use it: opened for one piece of work, whether or not a service runs."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from parley.cli.settings import CommandError, default_state_dir, state_dir
from parley.config import Config
from parley.core.errors import StoreUnavailable
from parley.core.ports import KeyStore
from parley.stores.opening import is_made, opened

T = TypeVar("T")


def run(config: Config, folder: Path | None, work: Callable[[KeyStore], Awaitable[T]]) -> T:
    """Opens the store, does the work and closes it again. Raises CommandError."""

    async def open_and_work() -> T:
        async with opened(config.store, state_dir(folder)) as store:
            return await work(store)

    try:
        return asyncio.run(open_and_work())
    except StoreUnavailable as error:
        raise CommandError(error.cause or error.message) from error


def existing(config: Config, folder: Path | None) -> Path:
    """Refuses a folder without a store, before one is made there. Raises CommandError."""
    found = (folder or default_state_dir()).expanduser().absolute()
    if not is_made(config.store, found):
        raise CommandError(f"{found} has no keys; name the service's folder with --state-dir, or make a key first")
    return found
