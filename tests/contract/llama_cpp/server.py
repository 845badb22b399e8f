"""Starts servers of the built-in model, and makes short calls."""

import subprocess
from pathlib import Path
from typing import Any

from parley.backends.llama_cpp import command as llama_cpp_command
from parley.backends.llama_cpp import launch as llama_cpp_launch
from parley.config import LlamaCppBackend

CONFIG = LlamaCppBackend(kind="llama_cpp", context=1024, slots=2)
SHORT: dict[str, Any] = {"max_tokens": 6, "temperature": 0, "seed": 1}
SEA: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Write three sentences about the sea."}],
    "temperature": 0,
    "max_tokens": 80,
}
TOOL = {"type": "function", "function": {"name": "f"}}


def start(run_dir: Path, config: LlamaCppBackend = CONFIG) -> "subprocess.Popen[str]":
    """Starts a server and waits until its model is loaded."""
    command = llama_cpp_command.command(run_dir, "local", llama_cpp_launch.settings(config))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "llama.cpp serves " in process.stdout.readline()
    return process
