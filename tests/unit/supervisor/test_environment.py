"""The environment of child processes."""

import os

import pytest

from parley.config import Config
from parley.config.loader import parse
from parley.supervisor import environment

BASE = {"PATH": "/bin", "HOME": "/h", "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "LD_LIBRARY_PATH": "/l", "TMPDIR": "/t"}
ARENAS = {"MALLOC_ARENA_MAX": "2"}
PYTHON = {"PYTHONPATH": "/p", "PYTHONHASHSEED": "0"}
NETWORK = {"HTTPS_PROXY": "http://p:1", "no_proxy": "a", "SSL_CERT_FILE": "/c", "GRPC_VERBOSITY": "ERROR"}
DEVICES = {"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "2"}
SECRETS = {
    "UPSTREAM_KEY": "canary",
    "AWS_SECRET_ACCESS_KEY": "canary",
    "PARLEY_API_KEY": "canary",
    "PARLEY_DB_TO": "canary",
    "GGML_API_KEY": "canary",
    "PYTHON_KEYRING_TOKEN": "canary",
    "DATABASE_URL": "canary",
    "PGPASSWORD": "canary",
}
OPENAI = "up: {kind: openai, base_url: 'http://up', api_key: '${UPSTREAM_KEY}'}"


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in {**BASE, **PYTHON, **NETWORK, **DEVICES, **SECRETS, "PGSSLMODE": "require"}.items():
        monkeypatch.setenv(name, value)


def _config(backend: str = OPENAI, store: str = "{kind: sqlite}") -> Config:
    return parse(f"backends: {{{backend}}}\nmodels: [{{id: m, targets: [{{backend: up}}]}}]\nstore: {store}\n", "f")


def test_envoy_gets_the_systems_variables_only() -> None:
    """Envoy needs neither Python's variables nor any secret."""
    assert BASE == environment.for_envoy()


def test_a_model_server_gets_those_of_python_and_devices() -> None:
    """llama.cpp also needs Python's variables and those that select devices and threads."""
    assert BASE | PYTHON | DEVICES == environment.for_model_server()


def test_a_worker_gets_those_of_python_and_the_network() -> None:
    """A worker needs proxies and certificates; the secrets of the configuration are in its specification."""
    assert ARENAS | BASE | PYTHON | NETWORK == environment.for_worker(_config())


def test_a_worker_behind_envoy_polls_its_few_connections() -> None:
    """gRPC's default wakes a thread whenever Envoy has read; a choice of the operator is kept."""
    variables = environment.for_worker(_config())
    assert variables | {"GRPC_POLL_STRATEGY": "poll"} == environment.behind_envoy(variables)
    assert environment.behind_envoy(environment.for_any_worker()) == environment.behind_envoy(variables)
    chosen = variables | {"GRPC_POLL_STRATEGY": "epoll1"}
    assert chosen == environment.behind_envoy(chosen)


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("postgresql://db/parley", {"PGSSLMODE": "require", "PGPASSWORD": "canary"}),
        ("postgresql://parley:x@db/parley", {"PGSSLMODE": "require"}),
    ],
)
def test_a_worker_with_postgresql_gets_the_variables_of_libpq(url: str, more: dict[str, str]) -> None:
    """The password is among them only if the URL has none."""
    store = f"{{kind: postgres, url: '{url}'}}"
    assert ARENAS | BASE | PYTHON | NETWORK | more == environment.for_worker(_config(store=store))


def test_a_worker_with_any_llm_inherits_all_variables() -> None:
    """The libraries of providers read variables of their own."""
    assert SECRETS.items() <= environment.for_worker(_config("up: {kind: any_llm, provider: mistral}")).items()
