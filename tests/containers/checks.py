"""Checks of edge/containers without a container engine: hadolint and Docker Compose read its files."""

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "edge" / "containers"
CONTAINERFILE, COMPOSE = FOLDER / "Containerfile", FOLDER / "compose.yaml"
# Debian's packages are those of the day of the build: it keeps no older versions that could be named.
_IGNORED = ["--ignore", "DL3008"]


def installed(name: str) -> str | None:
    """Returns the path of a program in the environment of the tests, which has wheels for x86_64 only."""
    return shutil.which(name, path=sysconfig.get_path("scripts"))


def problems(containerfile: Path = CONTAINERFILE, compose: Path = COMPOSE) -> Iterator[str]:
    """Yields what hadolint and Docker Compose find wrong with the files."""
    yield from _run("hadolint", "--no-color", *_IGNORED, str(containerfile)).stdout.splitlines()
    yield from _run("docker-compose", "--file", str(compose), "config", "--quiet").stderr.splitlines()


def composition() -> Any:
    """Returns the composition as Docker Compose reads it, with its defaults and with absolute paths."""
    done = _run("docker-compose", "--file", str(COMPOSE), "config", "--format", "json")
    if done.returncode:
        raise ValueError(done.stderr)
    return json.loads(done.stdout)


def _run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = installed(name)
    if program is None:
        raise FileNotFoundError(name)
    command: Sequence[str] = [program, *arguments]
    # Without the variables of the caller, which may replace parts of the composition.
    alone = {key: value for key, value in os.environ.items() if not key.startswith(("PARLEY_", "COMPOSE_"))}
    return subprocess.run(command, env=alone, capture_output=True, text=True, check=False, timeout=60)
