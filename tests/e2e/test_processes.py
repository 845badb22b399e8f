"""Processes of `parley up` and `parley serve`: start, replacement, and errors at startup."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from tests.e2e.conftest import write_config
from tests.processes import (
    ANY_PORTS,
    COMMAND,
    Parley,
    environment,
    launch,
    left_behind,
    run,
    started,
    until,
    wait_ready,
)
from tests.upstream import ScriptedUpstream

HELD_UP = 2.0  # seconds: several intervals of the model server's health checks
QUESTION = "What is the capital of France?"


def test_the_first_run_prints_a_call_that_works_when_pasted(tmp_path: Path) -> None:
    """Without a configuration the built-in model answers the printed curl call; the second run creates no key."""
    with started(folder=tmp_path) as parley:
        assert 1 == parley.output.count("\ncurl ")
        call = parley.output[parley.output.index("\ncurl ") : parley.output.index("\n\nCtrl-C")]
        assert QUESTION in call
        done = subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=True)
        assert "Paris" in json.loads(done.stdout)["choices"][0]["message"]["content"]
        assert f"REST  {parley.http}" in parley.output
        assert f"gRPC  {parley.grpc}" in parley.output
        key = parley.key
        assert 0 == parley.stop()
    with started(folder=tmp_path) as again:
        assert "sk-" not in again.output
        assert 200 == again.request("GET", "/v1/models", key=key)[0]


def test_ready_means_that_a_call_succeeds_however_slowly_the_model_loads(tmp_path: Path) -> None:
    """Once the ready file exists, each of the first calls is answered, even if the model server loads slowly."""
    parley = launch(folder=tmp_path, pipe=None, PARLEY_WORKERS="2")
    with left_behind(parley.children()):
        try:
            until(lambda: any("llama" in line for line in parley.children().values()), "the model server")
            [server] = [pid for pid, line in parley.children().items() if "llama" in line]
            os.kill(server, signal.SIGSTOP)
            time.sleep(HELD_UP)
            # No worker serves: its health checks would fail until a second after this.
            assert [] == list((tmp_path / "state" / "run").glob("worker-*.sock"))
            os.kill(server, signal.SIGCONT)
            wait_ready(parley)
            body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 1}
            statuses = [parley.request("POST", "/v1/chat/completions", body)[0] for _ in range(10)]
            assert [200] * 10 == statuses
        finally:
            parley.end()


def test_the_ready_file_is_there_while_parley_serves(scripted_config: Path) -> None:
    """The ready file has the addresses and the process id, and is removed at the end; port 0 selects free ports."""
    with started("--config", str(scripted_config)) as parley:
        ready = parley.folder / "ready.json"
        content = json.loads(ready.read_text())
        addresses = {"http": parley.http, "grpc": parley.grpc, "metrics": parley.metrics}
        assert addresses | {"pid": parley.process.pid} == content
        assert parley.http.startswith("http://127.0.0.1:")
        assert "0" != parley.grpc.rpartition(":")[2]
        assert 0 == parley.stop()
        assert not ready.exists()


@pytest.fixture(scope="module")
def two(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley with two workers and the model `scripted`, for tests that leave it serving."""
    the_upstream.reset()
    folder = tmp_path_factory.mktemp("two")
    variables = {"PARLEY_CONFIG": str(write_config(folder, the_upstream)), "PARLEY_WORKERS": "2"}
    with started(folder=folder, **variables) as parley:
        yield parley


def kill(parley: Parley, *processes: int) -> None:
    """Kills processes, and waits until the log says that others are started."""
    text = "ended (killed by SIGKILL); starting another"
    before = parley.log.count(text)
    for process in processes:
        os.kill(process, signal.SIGKILL)
    until(lambda: parley.log.count(text) == before + len(processes), f"the log: {text}")


def test_every_option_is_a_variable_too(two: Parley) -> None:
    """A variable `PARLEY_…` sets an option that is not given."""
    assert ["scripted"] == two.models()
    assert 2 == len(two.workers())


def test_a_killed_worker_of_two_costs_no_later_call(two: Parley, upstream: ScriptedUpstream) -> None:
    """While one worker is replaced, the other answers all calls."""
    kill(two, two.workers()[0])
    for _ in range(20):
        assert "Hello there." == two.chat("Hi")
    assert 20 == len(upstream.requests)


def test_a_killed_envoy_is_replaced_on_the_same_ports(two: Parley) -> None:
    """A replacement of Envoy listens on the same ports, even if port 0 selected them."""
    kill(two, next(pid for pid, line in two.children().items() if "envoy" in line))
    until(lambda: _answers(two), "an answer on the same port")


def test_killed_workers_are_replaced(scripted_config: Path) -> None:
    """After kill -9 of every worker, new ones answer the next call, with the configuration as read at the start."""
    with started("--config", str(scripted_config), "--workers", "2") as parley:
        assert "Hello there." == parley.chat("Hi")
        scripted_config.write_text("no configuration")
        before = set(parley.workers())
        kill(parley, *before)
        until(lambda: len(set(parley.workers()) - before) == 2, "two new workers")
        until(lambda: _answers(parley), "an answer of a new worker")
        assert "Hello there." == parley.chat("Hi")


def test_a_killed_model_server_is_replaced(stack: Parley) -> None:
    """The built-in model answers again after kill -9 of its process."""
    os.kill(_model_servers(stack)[0], signal.SIGKILL)
    stack.wait_for_log('the model server "local" ended (killed by SIGKILL); starting another')
    until(lambda: _status(stack, "smollm2") == 200, "an answer of the model")


def test_a_second_parley_on_the_same_state_is_rejected(two: Parley, scripted_config: Path) -> None:
    """The error names the process that holds the state folder."""
    state = two.folder / "state"
    second = run("up", *ANY_PORTS, "--config", str(scripted_config), "--state-dir", str(state))
    holder = f"another `parley up` (process {two.process.pid})"
    expected = f"parley: {state} is in use by {holder}; stop it or choose another --state-dir\n"
    assert (1, expected, "") == (second.returncode, second.stderr, second.stdout)


@pytest.mark.parametrize(
    ("version", "hint"),
    [
        (-1, "its schema has version -1, this Parley needs {now}; run `parley db upgrade`"),
        (
            99,
            (
                "its schema has version 99, which supports Parleys of version 99 and later; this Parley has {now}: "
                "install the one that upgraded the schema"
            ),
        ),
    ],
)
def test_another_schema_is_one_line(tmp_path: Path, version: int, hint: str) -> None:
    """A file with an older or newer schema is rejected with the remedy, before any process starts."""
    file = tmp_path / "parley.db"
    assert 0 == run("keys", "create", "--name", "x", "--state-dir", str(tmp_path)).returncode
    database = apsw.Connection(str(file))
    now = database.pragma("user_version")
    database.pragma("user_version", version)
    database.close()
    done = run("up", *ANY_PORTS, "--state-dir", str(tmp_path))
    assert (1, "", f"parley: {file}: {hint.format(now=now)}\n") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("option", ["--http", "--grpc"])
def test_a_port_in_use_is_one_line(scripted_config: Path, tmp_path: Path, option: str) -> None:
    """The error names the address and the option to change; no process starts."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        parley = launch("--config", str(scripted_config), option, address, folder=tmp_path)
        assert 1 == parley.process.wait(60)
    line = f"parley: {address} is in use; stop what uses it or choose another with {option}\n"
    assert (line, "") == (parley.log, parley.output)


def test_a_bad_configuration_is_a_line_each(tmp_path: Path) -> None:
    """Each error of a configuration is one line with file and path, without a traceback."""
    file = tmp_path / "parley.yaml"
    file.write_text("backends: {a: {kind: openai, base_url: 'ftp://x'}}\nmodels: [{id: m, targets: []}]\n")
    done = run("up", *ANY_PORTS, "--config", str(file), "--state-dir", str(tmp_path / "state"))
    assert 1 == done.returncode
    first, second = done.stderr.splitlines()
    assert first.startswith(f"parley: {file}:1: backends.a.base_url: ")
    assert second.startswith(f"parley: {file}:2: models[0].targets: ")


def test_the_configuration_may_be_a_descriptor(tmp_path: Path) -> None:
    """`--config <(…)` of a shell names an inherited descriptor, from which the configuration is read."""
    source, target = os.pipe()
    with os.fdopen(source, "rb"), os.fdopen(target, "wb") as output:
        output.write(
            b"backends: {a: {kind: openai, base_url: 'ftp://x'}}\nmodels: [{id: m, targets: [{backend: a}]}]\n"
        )
        output.close()
        command = [COMMAND, "up", *ANY_PORTS, "--config", f"/dev/fd/{source}", "--state-dir", str(tmp_path / "state")]
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=False, pass_fds=[source]
        )
    assert 1 == done.returncode
    assert done.stderr.startswith(f"parley: /dev/fd/{source}:1: backends.a.base_url: ")


def test_a_missing_model_file_is_one_line(tmp_path: Path) -> None:
    """The error names the file and the setting to change; no process starts."""
    file = tmp_path / "parley.yaml"
    backend = "{kind: llama_cpp, model_path: /nowhere/model.gguf}"
    file.write_text(f"backends: {{a: {backend}}}\nmodels: [{{id: m, targets: [{{backend: a}}]}}]\n")
    parley = launch("--config", str(file), folder=tmp_path)
    assert 1 == parley.process.wait(60)
    assert 1 == len(parley.log.splitlines())
    assert "/nowhere/model.gguf" in parley.log


def test_a_file_that_is_no_model_is_one_line_more(tmp_path: Path) -> None:
    """After llama.cpp rejects the model file at every attempt, Parley exits with the cause and leaves no process."""
    (tmp_path / "model.gguf").write_text("GGUF, and nothing else of a model")
    file = tmp_path / "parley.yaml"
    backend = f"{{kind: llama_cpp, model_path: {tmp_path}/model.gguf}}"
    file.write_text(f"backends: {{a: {backend}}}\nmodels: [{{id: m, targets: [{{backend: a}}]}}]\n")
    parley = launch("--config", str(file), folder=tmp_path)
    assert 1 == parley.process.wait(60)
    assert 'parley: the model server "a" does not start: ' in parley.log.splitlines()[-1]
    assert "Traceback" not in parley.log
    assert not (tmp_path / "ready.json").exists()


def test_serve_answers_grpc_without_envoy(scripted_config: Path, tmp_path: Path) -> None:
    """`parley serve` is one worker on a TCP port; it prints its address and exits with the worker."""
    argv = [COMMAND, "serve", "--config", str(scripted_config), "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path)]
    with subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        host, _, port = process.stdout.readline().removeprefix("gRPC  ").strip().rpartition(":")
        with socket.create_connection((host, int(port))):
            process.terminate()
        assert 0 == process.wait(60)


def _model_servers(parley: Parley) -> list[int]:
    """Returns the process ids of the model servers."""
    return [pid for pid, line in parley.children().items() if "llama_cpp" in line]


def _answers(parley: Parley) -> bool:
    """Returns whether a call is answered with 200; a refused connection is False."""
    return _status(parley, "scripted") == 200


def _status(parley: Parley, model: str) -> int:
    """Makes a call; returns its status, 0 if the connection fails."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    try:
        return parley.request("POST", "/v1/chat/completions", body)[0]
    except OSError:
        return 0
