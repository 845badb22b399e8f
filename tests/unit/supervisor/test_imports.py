"""What the processes import, which decides their memory and the time of the start."""

import json
import subprocess
import sys

import pytest

_LOADED = "import json, sys; {}; print(json.dumps(sorted(sys.modules)))"
_SUPERVISOR = "import parley.supervisor.plain_asyncio, parley.supervisor.main"
_WORKER = "from parley.supervisor.worker import import_application; import_application()"
_DRAWING = {"rich", "pygments", "prompt_toolkit", "markdown_it"}
_COMMANDS = _DRAWING | {"cyclopts", "attr", "difflib", "yaml", "parley_client"}
_OPTIONAL = {
    "asyncpg",
    "joserfc",
    "cryptography",
    "any_llm",
    "xllamacpp",
    "openai",
    "aiohttp",
    "parley.backends.anthropic",
    "parley.backends.parley",
    "parley.core.cache",
    "parley.core.guards",
    "parley.guard",
    "re2",
    "opentelemetry",
}
_SERVICE = {
    "prometheus_client",
    "grpc",
    "google.protobuf",
    "pydantic",
    "parley.config",
    "structlog",
    "orjson",
    "apsw",
    "uvloop",
    "yarl",
}
_RARE = {
    "importlib.metadata",
    "importlib.resources",
    "email",
    "zipfile",
    "csv",
    "backports.zstd",
    "compression.zstd",
    "greenlet",
    "tempfile",
    "shutil",
    "decimal",
}
"""What a worker imports only where it is used, if at all."""
_VALIDATION = {"pydantic", "pydantic_core", "annotated_types", "parley.config.loader"}
_SERVERS = {"prometheus_client.exposition", "wsgiref", "http.server", "http.client", "urllib.request"}
_LIBRARIES = {"ssl", "_ssl", "hashlib", "_hashlib"}  # of OpenSSL
_STANDARD = 15 if sys.version_info >= (3, 14) else 0
"""How many more modules the standard library of Python 3.14 imports for itself."""


def loaded(program: str) -> set[str]:
    """Returns the modules that a program imports."""
    done = subprocess.run([sys.executable, "-c", _LOADED.format(program)], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("program", "unwanted", "most"),
    [
        (_SUPERVISOR, _COMMANDS | _OPTIONAL | _SERVICE | _LIBRARIES, 230 + _STANDARD),
        (_WORKER, _COMMANDS | _OPTIONAL | _VALIDATION | _SERVERS | _RARE, 721),
    ],
    ids=["supervisor", "worker"],
)
def test_a_process_imports_no_more_than_it_needs(program: str, unwanted: set[str], most: int) -> None:
    """The supervisor imports little; a worker, what it serves with. Few more modules than today's are allowed."""
    modules = loaded(program)
    assert set() == unwanted & modules
    assert len(modules) <= most, sorted(modules)


@pytest.mark.parametrize(
    "program", ["import parley.cli.app", "import parley.cli.chat.command, parley.cli.chat.pipes, parley.cli.pull"]
)
def test_only_a_terminal_needs_what_draws(program: str) -> None:
    """Neither the list of commands nor `parley chat` in a pipe imports the libraries of a terminal."""
    assert set() == _DRAWING & loaded(program)


_SUPERVISE = """
import asyncio, contextlib, parley.cli.main
from parley.supervisor import main
main.preparation = None
with contextlib.suppress(AttributeError):
    asyncio.run(main.supervise([]))
"""
_SERVE = "import parley.app; parley.app._tune_garbage_collector()\n"


@pytest.mark.parametrize(("program", "most"), [(_SUPERVISE, 2_000), (_SERVE, 2_500)], ids=["supervisor", "worker"])
def test_a_process_collects_its_garbage_soon(program: str, most: int) -> None:
    """Connections of scrapes leave cycles, and so do calls: with the thresholds of a start, they take megabytes."""
    cycles = """
import gc
def cycle(): found = []; found.append(found)
gc.collect()
before, most = len(gc.get_objects()), 0
for number in range(19_000):
    cycle()
    if number % 100 == 0: most = max(most, len(gc.get_objects()) - before)
print(most)
"""
    done = subprocess.run([sys.executable, "-c", program + cycles], capture_output=True, text=True, check=True)
    assert int(done.stdout) < most
