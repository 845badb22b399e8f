"""The first API key of a new store, and the greeting of `parley up`."""

import json
import shlex
import sys
from pathlib import Path

from parley.config import Config
from parley.supervisor.addresses import Address
from parley.supervisor.errors import CommandError
from parley.supervisor.folders import write_private

_FILE = "first-key"
_QUESTION = "What is the capital of France?"


async def create(config: Config, state: Path) -> str | Path | None:
    """Creates a key if the store has none.

    Returns:
        The key if stdout is a terminal. Otherwise the file that holds it, because stdout is then a log or a pipe, which
        others may read. None if the store has keys.

    Raises:
        CommandError: The file cannot be written; no key is created.
    """
    from parley.stores.open import open_store

    async with open_store(config.store, state) as store:
        known, _ = await store.list_keys(page_size=1)
        if known:
            return None
        from parley.core.administration import Keys, KeySettings, Rules
        from parley.core.ports import Origin

        file = None if sys.stdout.isatty() else state / _FILE
        _write(file, "")
        _, secret = await Keys(store, Rules.of(config)).create(KeySettings("first key"), Origin("parley", "up"))
        _write(file, f"{secret}\n")
        return file or secret


def _write(file: Path | None, text: str) -> None:
    if file is None:
        return
    try:
        write_private(file, text)
    except OSError as error:
        raise CommandError(f"{file} cannot be written ({error.strerror}); it is to hold the first API key") from error


def greeting(http: Address, grpc: Address, key: str | Path | None, config: Config) -> str:
    """Returns the addresses; on the first run also the key, or its file, and an example call."""
    text = f"\nREST  {scheme(config)}://{http}\ngRPC  {grpc}\n"
    if isinstance(key, Path):
        header = f'"Authorization: Bearer $(cat {shlex.quote(str(key))})"'
        text += f"\nYour first API key is in {key}\n\nTry it:\n\n{_curl(http, header, config)}\n"
    elif key is not None:
        header = f"'Authorization: Bearer {key}'"
        text += f"\nYour first API key, shown only now:\n\n  {key}\n\nTry it:\n\n{_curl(http, header, config)}\n"
    return f"{text}\nCtrl-C stops it.\n"


def scheme(config: Config) -> str:
    """Returns the scheme of the REST listener."""
    return "https" if config.tls else "http"


def _curl(http: Address, header: str, config: Config) -> str:
    """Returns an example call as a shell command; `header` is its quoted Authorization header."""
    model = config.default_model or config.models[0].id
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": _QUESTION}]}, ensure_ascii=False)
    headers = f"-H {header} -H 'Content-Type: application/json'"
    # The certificate names the host that callers use, which is not an address of this machine.
    curl = "curl -k" if config.tls else "curl"
    return f"{curl} {scheme(config)}://{http.to_call()}/v1/chat/completions {headers} -d {shlex.quote(body)}"
