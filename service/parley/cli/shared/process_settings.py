"""What a configuration means for the processes of the supervisor."""

import json
import pickle
from dataclasses import asdict
from pathlib import Path

from parley.backends.llama_cpp import launch
from parley.config import Config, LlamaCppBackend
from parley.supervisor import environment
from parley.supervisor.configuration_metrics import ConfigurationFile
from parley.supervisor.plan import ProcessSettings


def process_settings(config: Config, path: Path | None) -> ProcessSettings:
    """Returns the settings of the processes.

    Args:
        config: The configuration.
        path: Its file; None for the default configuration.

    Raises:
        ConfigError: The file of a model cannot be used.
    """
    return ProcessSettings(
        worker=pickle.dumps(config),
        configuration=json.dumps(asdict(config), default=str),
        environment=environment.for_worker(config),
        models={name: launch.settings(backend) for name, backend in model_backends(config).items()},
        tls=tls_settings(config),
        files=config.files,
        file=ConfigurationFile.read(path),
    )


def model_backends(config: Config) -> dict[str, LlamaCppBackend]:
    """Returns the llama.cpp backends that a configured model uses, by name."""
    used = {target.backend for model in config.models for target in model.targets}
    found = ((name, backend) for name, backend in config.backends.items() if name in used)
    return {name: backend for name, backend in found if isinstance(backend, LlamaCppBackend)}


def tls_settings(config: Config) -> str:
    """Returns the settings of TLS, which a reload cannot change, as text."""
    return repr((config.tls, config.auth.mtls, config.admin.mtls))
