"""Opens the store for one command, whether or not a service runs."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from parley.config import Config
from parley.core.errors import ParleyError, SessionNotFound
from parley.core.ports import Store
from parley.stores.open import may_exist, open_store
from parley.supervisor.errors import CommandError
from parley.supervisor.folders import default_state_dir

T = TypeVar("T")


def run(config: Config, folder: Path, work: Callable[[Store], Awaitable[T]]) -> T:
    """Opens the store of a state folder, runs `work` on it and closes it. Raises CommandError."""

    async def open_and_work() -> T:
        async with open_store(config.store, folder) as store:
            return await work(store)

    try:
        return asyncio.run(open_and_work())
    except SessionNotFound as error:
        raise CommandError(f"{error.message}; see `parley sessions list`, and --account") from error
    except ParleyError as error:
        raise CommandError(error.cause or error.message) from error


def existing(config: Config, folder: Path | None, what: str = "keys", hint: str = ", or make a key first") -> Path:
    """Returns the state folder. Raises CommandError if it has no store, so that none is created there.

    Args:
        config: The configuration, which names the store.
        folder: The value of `--state-dir`; None for the default folder.
        what: What the store should contain, for the error message.
        hint: A second remedy, appended to the error message.
    """
    found = (folder or default_state_dir()).expanduser().absolute()
    if not may_exist(config.store, found):
        raise CommandError(f"{found} has no {what}; name the service's folder with --state-dir{hint}")
    return found
