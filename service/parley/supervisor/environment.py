"""The environment of child processes: an allow-list, so that no secret of this process's environment reaches them."""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parley.config import Config

# What the C library, the dynamic loader and Python need to start and to find their files.
_SYSTEM = (
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TZDIR|TMPDIR|TEMP|TMP|LD_LIBRARY_PATH|LD_PRELOAD|DYLD_\w+"
    r"|\w*FAKE\w*"  # of libfaketime
)
_PYTHON = r"PYTHON\w*|VIRTUAL_ENV|MALLOC_\w+|COVERAGE_\w+"
_COMPUTE = r"CUDA_\w+|GGML_\w+|GOMP_\w+|HIP_\w+|KMP_\w+|NVIDIA_\w+|OMP_\w+|ROCR_\w+"  # devices and threads of llama.cpp
_NETWORK = r"(?i:https?_proxy|all_proxy|no_proxy)|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|GRPC_\w+|OTEL_\w+"
_ARENAS = {"MALLOC_ARENA_MAX": "2"}  # glibc makes one for each thread of gRPC, up to eight a core: 2 MB with two cores
# With gRPC's default, epoll, a thread of a worker also wakes whenever Envoy has read a message from their Unix socket,
# because the socket can then be written. `poll` takes longer the more connections there are, but Envoy has few.
_POLLING = {"GRPC_POLL_STRATEGY": "poll"}
_ENVOY = re.compile(_SYSTEM)
_MODEL_SERVER = re.compile(f"{_SYSTEM}|{_PYTHON}|{_COMPUTE}")
_WORKER = re.compile(f"{_SYSTEM}|{_PYTHON}|{_NETWORK}")
_POSTGRES = re.compile(r"PG[A-Z]+")
_URL_WITH_PASSWORD = re.compile(r"[a-z]+://[^/?#@]*:[^/?#]*@")
_SECRET = re.compile(r"(?i)key|token|secret|passw|credential")


def for_envoy() -> dict[str, str]:
    """Returns the variables that Envoy needs."""
    return _select(os.environ, _ENVOY)


def for_model_server() -> dict[str, str]:
    """Returns the variables that llama.cpp's server needs."""
    return _select(os.environ, _MODEL_SERVER)


def for_any_worker() -> dict[str, str]:
    """Returns the variables that every worker needs."""
    return _ARENAS | _select(os.environ, _WORKER)


def behind_envoy(variables: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of a worker whose calls come from the supervisor's own Envoy."""
    return {**_POLLING, **variables}


def for_worker(config: "Config") -> dict[str, str]:
    """Returns the variables that a worker with this configuration needs.

    The values of the configuration's `${…}` are not among them: the worker reads them from its specification. With a
    backend of `kind: any_llm` it inherits all variables, because the libraries of providers read their own.
    """
    from parley.config import AnyLLMBackend

    if any(isinstance(backend, AnyLLMBackend) for backend in config.backends.values()):
        return dict(os.environ)
    return for_any_worker() | _postgres(config)


def _select(environment: Mapping[str, str], allowed: re.Pattern[str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if allowed.fullmatch(name) and not _SECRET.search(name)}


def _postgres(config: "Config") -> dict[str, str]:
    """Returns the variables of libpq, which asyncpg reads too; without the password if the URL contains one."""
    from parley.config import PostgresConfig

    if not isinstance(config.store, PostgresConfig):
        return {}
    found = {name: value for name, value in os.environ.items() if _POSTGRES.fullmatch(name)}
    if _URL_WITH_PASSWORD.match(config.store.url):
        found.pop("PGPASSWORD", None)
    return found
