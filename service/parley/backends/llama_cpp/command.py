"""Command line and file paths of llama.cpp's server. Imports nothing else, because the supervisor does."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def socket_path(run_dir: Path, name: str) -> Path:
    """Returns the socket path of the server for the backend `name`."""
    return run_dir / f"llama-{name}.sock"


def capabilities_path(unix_socket: Path) -> Path:
    """Returns the path of the file to which the server writes the capabilities of the model's chat template."""
    return unix_socket.with_suffix(".json")


def command(run_dir: Path, name: str, settings: Mapping[str, str]) -> list[str]:
    """Returns the command that runs the server as a child of this process.

    Args:
        run_dir: Directory for the socket and the capabilities file.
        name: Name of the backend.
        settings: The settings of `launch.settings`.
    """
    arguments = {"socket": str(socket_path(run_dir, name)), **settings, "parent": str(os.getpid())}
    flags = [text for key, value in arguments.items() for text in (f"--{key}", value)]
    return [sys.executable, "-m", "parley.backends.llama_cpp.server", *flags]
