"""The processes of `parley up` in operation: what they can read and open, and their replacement when they hang.

One Parley with the built-in model and a scripted upstream serves all tests; each hanging process is replaced.
"""

import os
import resource
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Parley, environment, started, until, up_command, wait_ready
from tests.upstream import Gate, Json, ScriptedUpstream, completion

CANARY = "canary-4d1f"
CONFIG = """\
backends:
  local: {{kind: llama_cpp}}
  up: {{kind: openai, base_url: "{url}", api_key: "${{UPSTREAM_KEY}}"}}
models:
  - {{id: smollm2, targets: [{{backend: local}}]}}
  - {{id: scripted, targets: [{{backend: up}}], whole_answers: whole}}
default_model: scripted
"""
KINDS = {"worker 1": "supervisor.worker", "Envoy": "envoy", 'the model server "local"': "llama_cpp"}


@pytest.fixture(scope="module")
def parley(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley with one worker, and with secrets in its environment."""
    folder = tmp_path_factory.mktemp("supervision")
    (folder / "parley.yaml").write_text(CONFIG.format(url=the_upstream.url))
    secrets = {name: f"{CANARY}-{name}" for name in ("UPSTREAM_KEY", "AWS_SECRET_ACCESS_KEY", "PARLEY_API_KEY")}
    with started("--config", str(folder / "parley.yaml"), folder=folder, **secrets) as running:
        yield running


def _process(parley: Parley, part: str) -> int:
    """Returns the id of the first process whose command line has this part."""
    return next(pid for pid, line in parley.children().items() if part in line)


def test_no_process_shows_a_secret(parley: Parley) -> None:
    """Neither the environment nor the command line of a child contains a secret of Parley's environment."""
    assert len(KINDS) == len(parley.children())
    for pid in parley.children():
        for file in ("environ", "cmdline"):
            content = Path(f"/proc/{pid}/{file}").read_bytes()
            assert content
            assert CANARY.encode() not in content


def test_the_worker_still_has_the_secrets_of_its_configuration(parley: Parley, upstream: ScriptedUpstream) -> None:
    """The value of `${UPSTREAM_KEY}` reaches the upstream."""
    upstream.default = lambda _: Json(completion("Hello there."))
    assert "Hello there." == parley.chat("Hi")
    assert f"Bearer {CANARY}-UPSTREAM_KEY" == upstream.requests[-1].headers["authorization"]


def test_only_the_owner_may_open_files_and_sockets(parley: Parley) -> None:
    """Folders of the state have mode 0700; other users can open no file and no socket in them."""
    state = parley.folder / "state"
    for folder in (state, (state / "run").resolve()):
        assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
        for file in folder.rglob("*"):
            assert 0 == stat.S_IMODE(file.stat().st_mode) & 0o077, file


def test_the_first_key_is_in_a_private_file_and_not_in_the_log(parley: Parley) -> None:
    """Without a terminal, output and log have the path of the key only."""
    file = parley.folder / "state" / "first-key"
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert parley.key.startswith("sk-")
    assert f"Your first API key is in {file}\n" in parley.output
    assert parley.key not in parley.output + parley.log


def test_every_process_may_open_as_many_files_as_the_system_allows(scripted_config: Path, tmp_path: Path) -> None:
    """The soft limit of open files is raised to the hard limit, and a low hard limit is a warning with a remedy."""
    command = up_command(tmp_path, ("--config", str(scripted_config)))
    limited = ["bash", "-c", 'ulimit -Sn 400; ulimit -Hn 2000; exec "$@"', "bash", *command]
    with (tmp_path / "log").open("wb") as log:
        parley = Parley(subprocess.Popen(limited, env=environment(), stdout=log, stderr=log), tmp_path)
    try:
        wait_ready(parley)
        assert {(2000, 2000)} == {resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in parley.children()}
        assert "parley: the limit of open files is 2000, " in parley.log
    finally:
        parley.end()


def test_the_supervisor_has_loaded_no_library_of_the_service(parley: Parley) -> None:
    """Once Parley serves, its first process has only what supervision needs; the rest ended with the preparation."""
    mapped = Path(f"/proc/{parley.process.pid}/maps").read_text()
    libraries = ("cygrpc", "_pydantic_core", "_message.abi3", "orjson", "apsw", "_yaml", "uvloop", "libssl")
    assert [] == [name for name in libraries if name in mapped]
    assert [] == [line for line in parley.children().values() if "parley.cli.prepare" in line]


def test_a_lost_run_folder_is_made_again(parley: Parley, upstream: ScriptedUpstream) -> None:
    """After the loss of all sockets, every process is replaced, also one that ends meanwhile; calls are answered."""
    run, before = (parley.folder / "state" / "run").resolve(), set(parley.children())
    shutil.rmtree(run)
    os.kill(_process(parley, KINDS["Envoy"]), signal.SIGKILL)
    until(lambda: not before & set(parley.children()), "all are replaced")
    for model in ("scripted", "smollm2"):
        until(lambda model=model: _answers(parley, model), f"{model} answers")  # type: ignore[misc]
    assert f"parley: the folder {run} was removed; it is made again\n" in parley.log


def test_a_lost_admin_socket_is_made_again(parley: Parley, upstream: ScriptedUpstream) -> None:
    """Without its admin socket Envoy cannot be administered; it is replaced, and the workers are not."""
    before, workers = _process(parley, KINDS["Envoy"]), parley.workers()
    (parley.folder / "state" / "run" / "envoy-admin.sock").unlink()
    parley.wait_for_log("parley: Envoy is replaced: its socket was removed")
    until(lambda: before not in parley.children(), "Envoy is replaced")
    until(lambda: _answers(parley, "scripted"), "a call is answered")
    assert workers == parley.workers()


def test_a_lost_store_stays_an_outage(parley: Parley, upstream: ScriptedUpstream) -> None:
    """After the loss of all files of the store, a restarted worker answers 503 until they are back."""
    state, kept, key = parley.folder / "state", parley.folder / "kept", parley.key
    kept.mkdir()
    lost = [file for file in state.glob("parley.db*") if file.is_file()]
    for file in lost:
        file.rename(kept / file.name)
    worker = _process(parley, KINDS["worker 1"])
    os.kill(worker, signal.SIGKILL)
    until(lambda: worker not in parley.children(), "the worker ends")
    until(lambda: _code(parley, key) == "store_unavailable", "the new worker answers")
    assert 401 != _status(parley, "sk-wrong")
    assert [200, 503] == [_status(parley, key, path) for path in ("/livez", "/readyz")]
    assert not (state / "parley.db").exists()
    for file in lost:
        (kept / file.name).rename(file)
    until(lambda: _status(parley, key) == 200, "the worker uses the store again")
    assert 401 == _status(parley, "sk-wrong")


def _status(parley: Parley, key: str, path: str = "/v1/models") -> int:
    with parley.connection() as connection:
        connection.request("GET", path, headers=parley.headers(key))
        return connection.getresponse().status


def _code(parley: Parley, key: str) -> str | None:
    try:
        answer = parley.request("GET", "/v1/models", key=key)[1]
    except OSError:
        return None
    return answer["error"]["code"] if "error" in answer else None


def test_hanging_processes_are_replaced(parley: Parley, upstream: ScriptedUpstream) -> None:
    """Stopped by SIGSTOP, each kind of process is logged, killed and replaced; a call that waited can be retried."""
    gate = Gate()
    upstream.default = lambda _: Json(completion("Hello there."), wait=gate)
    statuses: list[tuple[int, object]] = []
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    waiting = threading.Thread(target=lambda: statuses.append(parley.request("POST", "/v1/chat/completions", body)))
    waiting.start()
    until(lambda: upstream.requests, "the call has reached the upstream")
    worker, server = (_process(parley, KINDS[name]) for name in ("worker 1", 'the model server "local"'))
    for pid in (worker, server):
        os.kill(pid, signal.SIGSTOP)
    waiting.join()
    gate.set()
    [(status, error)] = statuses
    assert (503, "service_unavailable") == (status, error["error"]["code"])  # type: ignore[index]
    until(lambda: not {worker, server} & set(parley.children()), "both are replaced")
    envoy = _process(parley, KINDS["Envoy"])
    os.kill(envoy, signal.SIGSTOP)
    until(lambda: envoy not in parley.children(), "Envoy is replaced")
    for name in KINDS:
        parley.wait_for_log(f"parley: {name} hangs (no answer for ")
        parley.wait_for_log(f"parley: {name} ended (killed by SIGKILL); starting another")
    for model in ("scripted", "smollm2"):
        until(lambda model=model: _answers(parley, model), f"{model} answers")  # type: ignore[misc]


def _answers(parley: Parley, model: str) -> bool:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    try:
        return parley.request("POST", "/v1/chat/completions", body)[0] == 200
    except OSError:
        return False
