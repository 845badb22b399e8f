"""Checks of `make` before it changes anything."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs make, apart from a make that runs the tests."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=False, timeout=60)


def test_what_only_development_needs_is_not_installed_to_run() -> None:
    """`make run` installs requirements.lock, and `make install` the tools of checks and tests too."""
    shown = {target: make("-B", "-n", target).stdout for target in ("run", "install")}
    assert {"run", "install"} == {target for target, text in shown.items() if "-r requirements.lock" in text}
    assert {"install"} == {target for target, text in shown.items() if "-r tests/requirements.lock" in text}


def test_an_old_python_is_rejected_in_one_line(tmp_path: Path) -> None:
    """A Python older than 3.11 is named, and nothing is installed with it."""
    old = tmp_path / "python3.10"
    old.write_text("#!/bin/sh\nexit 1\n")  # to the question for its version, a Python before 3.11 says no
    old.chmod(0o755)
    done = make("-B", "install", f"PYTHON={old}")
    line = f"Parley needs Python 3.11 or later; {old} is not: name one with make install PYTHON=…"
    assert (2, "", line) == (done.returncode, done.stdout, done.stderr.splitlines()[0])


def test_a_missing_builder_of_images_is_named() -> None:
    """Without Docker, Podman and Buildah, `make images` says what to install."""
    done = make("images", "BUILDER=")
    line = "make images needs Docker (running), Podman or Buildah: install one, for example with apt install podman"
    assert (2, "", line) == (done.returncode, done.stdout, done.stderr.splitlines()[0])


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """`make secrets` makes random passwords in a folder for its owner alone, and keeps those that exist."""
    folder = tmp_path / "secrets"
    make("secrets", f"SECRETS={folder}")
    made = {one.name: one.read_text() for one in folder.iterdir()}
    assert {"grafana-password", "postgres-password"} == made.keys()
    assert {48} == {len(text) for text in made.values()}
    make("secrets", f"SECRETS={folder}")
    assert made == {one.name: one.read_text() for one in folder.iterdir()}
    assert (0o700, 0o444) == (folder.stat().st_mode & 0o777, (folder / "grafana-password").stat().st_mode & 0o777)
