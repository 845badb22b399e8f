"""The npm packages of the tests, installed once beside the Python packages; the scripts are in `node`."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).with_name("node")
OLDEST = 20  # the version of Node that package.json requires


@pytest.fixture(scope="session")
def installed() -> Path:
    """A folder with the packages of the lock file, installed once beside the Python packages."""
    for command in ("node", "npm"):
        if shutil.which(command) is None:
            unavailable(f"{command} is not installed; the package for Node is tested with Node {OLDEST} or later")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < OLDEST:
        unavailable(f"Node is {version.strip()}; the package for Node is tested with {OLDEST} or later")
    lock = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = Path(sys.prefix) / "node" / lock
    if not folder.exists():
        _install(folder)
    return folder


def unavailable(why: str) -> None:
    """Skips the test; in CI, fails it."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def _install(folder: Path) -> None:
    """Installs the packages, unless another process does: that takes a core for half a minute."""
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as made:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, made)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
            assert 0 == done.returncode, done.stderr
            Path(made).rename(folder)
