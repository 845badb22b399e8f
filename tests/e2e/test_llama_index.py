"""LlamaIndex's client, unmodified, in a separate environment: it reads one tool call per chunk."""

import hashlib
import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e import vendor
from tests.processes import PATIENCE, Parley, environment
from tests.upstream import ScriptedUpstream

HERE = Path(__file__).with_name("llama_index")
UV = str(Path(sys.executable).with_name("uv"))
RUNS = 20
CALLS = [["get_weather", json.loads(call["function"]["arguments"])] for call in vendor.PARALLEL_CALLS]


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of an environment with the packages of the lock file, created once beside the other packages."""
    lock = HERE / "requirements.lock"
    folder = Path(sys.prefix) / "llama-index" / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    if not folder.exists():
        _install(lock, folder)
    return folder / "bin" / "python"


def _install(lock: Path, folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as made:
        commands = (
            ["venv", "--quiet", "--relocatable", "--python", sys.executable, "--clear", made],
            ["pip", "install", "--quiet", "--python", made, "--no-deps", "--require-hashes", "-r", str(lock)],
        )
        for command in commands:
            done = subprocess.run([UV, *command], capture_output=True, text=True, check=False)
            assert 0 == done.returncode, done.stderr
        with suppress(OSError):  # another process was faster
            Path(made).rename(folder)
    assert folder.exists()


@pytest.mark.parametrize("size", [7, 100], ids=["arguments in pieces", "arguments in one piece"])
def test_parallel_streamed_tool_calls_are_all_read(
    stack: Parley, upstream: ScriptedUpstream, python: Path, size: int
) -> None:
    """Two calls that arrive together are read as two calls in each of twenty runs."""
    upstream.default = replace(vendor.calls_in_pieces(vendor.PARALLEL_CALLS, size), together=True)
    done = subprocess.run(
        [str(python), str(HERE / "tools_client.py"), str(RUNS)],
        env=environment(PARLEY_URL=stack.http, OPENAI_API_KEY=stack.key),
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE,
    )
    assert 0 == done.returncode, done.stderr
    assert [CALLS] * RUNS == [json.loads(line) for line in done.stdout.splitlines()]
