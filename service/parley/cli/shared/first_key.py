"""The first API key of a new store, and the greeting of `parley up`."""

import json
import shlex
import shutil
import sys
from pathlib import Path

from parley.config import Config
from parley.supervisor.addresses import Address
from parley.supervisor.errors import CommandError
from parley.supervisor.folders import default_state_dir, write_private

FIRST_KEY = "first-key"
"""The file in the state folder that has the first key, if it was not shown on a terminal."""
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

        file = None if sys.stdout.isatty() else state / FIRST_KEY
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


def greeting(  # noqa: PLR0913 - one parameter a fact
    http: Address,
    grpc: Address,
    key: str | Path | None,
    config: Config,
    *,
    another: str = "parley keys create",
    page: bool = True,
    docs: bool = False,
    admin: Address | None = None,
) -> str:
    """Returns the addresses; on the first run the key, or its file, and an example call; later how to create a key.

    Args:
        http: The REST address.
        grpc: The gRPC address.
        key: The first key, or the file with it; None on a later run.
        config: The configuration.
        another: The command that creates a key for this store.
        page: Whether the page is served.
        docs: Whether the documentation is served.
        admin: The address of the admin listener; None without one.
    """
    url = f"{scheme(config)}://{http}"
    text = (f"\nPage  {url}/" if page else "") + f"\nREST  {url}\ngRPC  {grpc}\n"
    text += f"Docs  {url}/docs/\n" if docs else ""
    if admin is not None:
        text += f"Admin {scheme(config)}://{admin}/\n" if page else f"Admin {admin}\n"
    if isinstance(key, Path):
        header = f'"Authorization: Bearer $(cat {shlex.quote(str(key))})"'
        text += f"\nYour first API key is in {key}\n\nTry it:\n\n{_curl(http, header, config)}\n"
    elif key is not None:
        text += f"\nYour first API key, shown only now:\n\n  {key}\n\nTry it:\n\n{_curl_with_key(http, key, config)}\n"
    else:
        text += f"\nTo create another API key:\n\n  {another} --name NAME\n"
    return f"{text}\nCtrl-C stops it.\n"


def create_command(config: Path | None, state: Path) -> str:
    """Returns the command that creates a key, as it works in the current folder.

    Args:
        config: The configuration file, as given; None for the default configuration.
        state: The state folder.
    """
    words = [_program(), "keys", "create"]
    if state != default_state_dir().absolute():
        words += ["--state-dir", str(state)]
    if config is not None:
        words += ["--config", str(config)]
    return shlex.join(words)


def _program() -> str:
    """Returns the shortest path of the command `parley` of this installation."""
    own = Path(sys.executable).with_name("parley")
    found = shutil.which("parley")
    if found is not None and (not own.exists() or own.samefile(found)):
        return "parley"
    try:
        return str(own.relative_to(Path.cwd()))
    except ValueError:
        return str(own)


def scheme(config: Config) -> str:
    """Returns the scheme of the REST listener."""
    return "https" if config.tls else "http"


def _curl_with_key(http: Address, key: str, config: Config) -> str:
    """Returns an example call with the key in it, or in a variable if the terminal is too narrow for that."""
    example = _curl(http, f"'Authorization: Bearer {key}'", config)
    if max(map(len, example.splitlines())) <= shutil.get_terminal_size().columns:
        return example
    return f"KEY={key}\n" + _curl(http, '"Authorization: Bearer $KEY"', config)


def _curl(http: Address, header: str, config: Config) -> str:
    """Returns an example call as a shell command of short lines; `header` is its quoted Authorization header."""
    exact = (model.id for model in config.models if not model.is_wildcard)
    model = json.dumps(config.default_model or next(exact, config.models[0].id), ensure_ascii=False)
    question = json.dumps(_QUESTION, ensure_ascii=False)
    body = f'{{"model": {model},\n  "messages": [{{"role": "user",\n    "content": {question}}}]}}'
    # The certificate names the host that callers use, which is not an address of this machine.
    curl = "curl -k" if config.tls else "curl"
    url = f"{scheme(config)}://{http.to_call()}/v1/chat/completions"
    return f"{curl} {url} \\\n  -H {header} \\\n  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(body)}"
