"""End-to-end tests: the real `parley up` with Envoy, workers, SQLite, the built-in model, and scripted upstreams.

The fixture `stack` is shared by all tests of a process. Its models are `smollm2` (built-in) and `scripted` (answered by
the fixture `upstream`, without retries). Tests that stop or reconfigure processes start their own stack with
`tests.processes.started`. Two more models have guards, of which tests/e2e/test_guards.py starts one.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from tests.e2e.faults.outage import Observation, observe
from tests.processes import Parley, started
from tests.upstream import ScriptedUpstream

OUTAGE_WORKERS = 2
# Many targets with the same scripted upstream, so that failures in tests open no breaker.
NAMES = [f"scripted-{number}" for number in range(40)]
CONFIG = """\
backends:
  local: {{kind: llama_cpp}}
{backends}
guards:
  names: {{address: "unix:{folder}/guard.sock", deadline: 20s, window: 10, overlap: 10}}
  keys: {{secrets: true, action: refuse}}
  gone: {{address: "unix:{folder}/none.sock", window: 4, before: false}}
models:
  - id: smollm2
    targets: [{{backend: local}}]
    instructions: "You are a helpful assistant. Answer in one short sentence."
    defaults: {{temperature: 0, max_tokens: 128}}
  - id: scripted
    targets: [{targets}]
    retries: {{attempts: 1}}
    whole_answers: whole
  - {{id: guarded, targets: [{{backend: scripted-38}}], guards: [keys, names]}}
  - {{id: unguarded, targets: [{{backend: scripted-39}}], guards: [gone]}}
default_model: smollm2
"""


@pytest.fixture(scope="session")
def the_upstream() -> Iterator[ScriptedUpstream]:
    """One scripted upstream for all tests."""
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(the_upstream: ScriptedUpstream) -> ScriptedUpstream:
    """The scripted upstream, reset."""
    the_upstream.reset()
    return the_upstream


@pytest.fixture(scope="session")
def stack_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the configuration of `stack`, and of the socket of its guard."""
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="session")
def stack(the_upstream: ScriptedUpstream, stack_folder: Path) -> Iterator[Parley]:
    """One `parley up` for all tests that leave it unchanged: `http`, `grpc`, `key`."""
    file = stack_folder / "parley.yaml"
    backends = "\n".join(
        f'  {name}: {{kind: openai, base_url: "{the_upstream.url}", extra_body: all}}' for name in NAMES
    )
    targets = ", ".join(f"{{backend: {name}, model: scripted-1}}" for name in NAMES)
    file.write_text(CONFIG.format(backends=backends, targets=targets, folder=stack_folder))
    with started("--config", str(file), "--workers", "2") as parley:
        yield parley


@pytest.fixture(scope="session")
def client(stack: Parley) -> Iterator[openai.OpenAI]:
    """OpenAI's Python package with another base URL, without retries."""
    with openai.OpenAI(base_url=f"{stack.http}/v1", api_key=stack.key, max_retries=0) as client:
        yield client


@pytest.fixture
def scripted_config(upstream: ScriptedUpstream, tmp_path: Path) -> Path:
    """A configuration file with one model, `scripted`, for a separate Parley that starts fast."""
    return write_config(tmp_path, upstream)


def write_config(folder: Path, upstream: ScriptedUpstream) -> Path:
    """Writes a configuration file with one model, `scripted`; returns its path."""
    file = folder / "parley.yaml"
    backend = f'{{kind: openai, base_url: "{upstream.url}"}}'
    file.write_text(
        f"backends:\n  up: {backend}\ndefault_model: scripted\n"
        "models:\n  - id: scripted\n    targets: [{backend: up}]\n"
    )
    return file


@pytest.fixture(scope="session")
def outage() -> Iterator[Future[Observation]]:
    """A target's outage of a minute, which runs in the background from the first test that requires it."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(observe, OUTAGE_WORKERS, stop)
        stop.set()
