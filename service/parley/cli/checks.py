"""What is checked before anything is started, so that an error is one line and not a half-started Parley."""

import errno
import socket
from pathlib import Path

from parley.cli.children import model_backends
from parley.cli.settings import Address, CommandError
from parley.config import Config
from parley.core.routing import Router


def check_config(config: Config) -> None:
    """Raises ConfigError for what only using it tells: a model's `defaults`, and a llama.cpp model that is missing."""
    from parley.backends.llama_cpp import model_path

    Router(config, {})
    for backend in model_backends(config).values():
        model_path(backend)


def check_address(address: Address, option: str) -> None:
    """Raises CommandError where nothing can listen on the address; `option` is how to choose another."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that has just been left is free
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        raise CommandError(_explain(address, option, error)) from error


def _explain(address: Address, option: str, error: OSError) -> str:
    """What to change about an address."""
    if error.errno == errno.EADDRINUSE:
        return f"{address} is in use; stop what uses it or choose another with {option}"
    if error.errno == errno.EACCES:
        return f"{address} needs more rights than we have; choose a port above 1023 with {option}"
    return f"{address} is not an address of this machine ({error.strerror}); choose another with {option}"


def check_ready_file(path: Path | None) -> None:
    """Removes a ready file that was left behind. Raises CommandError where it cannot be written."""
    if path is None:
        return
    try:
        path.unlink(missing_ok=True)
        path.touch()
        path.unlink()
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror}); choose another file with --ready-file"
        raise CommandError(message) from error
