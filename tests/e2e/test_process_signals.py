"""Signals to `parley up`: SIGINT, SIGTERM, SIGHUP, SIGKILL, and the end of its terminal."""

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import (
    Parley,
    left_behind,
    run_here,
    started,
    until,
)
from tests.terminal import in_terminal
from tests.upstream import Events, Gate, ScriptedUpstream, chunks, ending


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_process(scripted_config: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM stop every process, with exit code 0."""
    with started("--config", str(scripted_config)) as parley:
        family = parley.children()
        assert len(family) >= 2
        with left_behind(family):
            assert 0 == parley.stop(number)


def test_ctrl_c_in_a_terminal_lets_a_running_stream_finish(scripted_config: Path, upstream: ScriptedUpstream) -> None:
    """Only the supervisor receives the terminal's Ctrl-C: the workers drain, and a running stream completes."""
    gate = Gate()
    upstream.answer(Events([*chunks("Hel"), gate, *chunks("lo"), *ending()]))
    with in_terminal("--config", str(scripted_config)) as terminal, stream(terminal.parley) as lines:
        assert any("Hel" in line for line in lines)
        assert re.search(r"✓.*Store SQLite[^✓]*✓.*Starting the workers[^✓]*✓.*Starting Envoy", terminal.parley.log)
        with left_behind(terminal.parley.children()):
            terminal.press(b"\x03")
            terminal.parley.wait_for_log("stopping when running calls have finished")
            gate.set()
            assert "data: [DONE]" == [line for line in lines if line][-1]
            assert 0 == terminal.parley.process.wait(60)


def test_a_second_ctrl_c_stops_immediately(scripted_config: Path, upstream: ScriptedUpstream) -> None:
    """A second Ctrl-C stops without waiting for running streams."""
    upstream.answer(Events([*chunks("Hel"), Gate()]))
    with started("--config", str(scripted_config)) as parley, stream(parley) as lines:
        assert any("Hel" in line for line in lines)
        with left_behind(parley.children()):
            parley.process.send_signal(signal.SIGINT)
            parley.wait_for_log("repeat the signal to stop at once")
            parley.process.send_signal(signal.SIGINT)
            assert 0 == parley.process.wait(60)


def test_closing_the_terminal_stops_everything(scripted_config: Path) -> None:
    """The SIGHUP of a closed terminal stops the service instead of reloading its configuration."""
    with in_terminal("--config", str(scripted_config)) as terminal, left_behind(terminal.parley.children()):
        terminal.close()
        terminal.parley.process.wait(60)


def test_killing_the_supervisor_ends_its_processes(scripted_config: Path) -> None:
    """After kill -9 of the supervisor, the kernel ends its processes."""
    with started("--config", str(scripted_config)) as parley, left_behind(parley.children()):
        parley.stop(signal.SIGKILL)


def test_after_kill_9_the_next_start_works(scripted_config: Path, tmp_path: Path) -> None:
    """A lock, sockets and a ready file left by a killed process do not prevent the next start."""
    with started("--config", str(scripted_config), folder=tmp_path) as parley:
        parley.stop(signal.SIGKILL)
        key = parley.key
    with started("--config", str(scripted_config), folder=tmp_path) as again:
        assert 200 == again.request("GET", "/v1/models", key=key)[0]


def test_sighup_loads_a_configuration_without_a_failed_request(
    scripted_config: Path, upstream: ScriptedUpstream
) -> None:
    """During a reload calls are answered and a running stream completes; then the new model is available."""
    gate = Gate()
    upstream.answer(Events([*chunks("Hel"), gate, *chunks("lo"), *ending()]))
    with started("--config", str(scripted_config), "--workers", "1") as parley, stream(parley) as lines:
        assert any("Hel" in line for line in lines)
        scripted_config.write_text(scripted_config.read_text() + "  - {id: new, targets: [{backend: up}]}\n")
        with calls(parley) as answers:
            old = parley.workers()
            parley.process.send_signal(signal.SIGHUP)
            parley.wait_for_log("the new configuration is in use")
            assert ["scripted", "new"] == parley.models()
        assert len(answers) > 10
        assert {200} == set(answers)
        assert set(old) < set(parley.workers())
        scraped = parley.scrape()
        assert re.search(r'^parley_draining\{worker="draining-\d+"\} 1\.0$', scraped, re.MULTILINE), scraped[:2000]
        assert 'parley_draining{worker="1"} 0.0' in scraped
        gate.set()
        assert "data: [DONE]" == [line for line in lines if line][-1]
        until(lambda: not set(old) & set(parley.workers()), "the old worker leaves")


def test_a_reload_reports_its_outcome(scripted_config: Path) -> None:
    """`parley reload` ends when the reload has: with what has changed, or with 1 and why the old workers continue."""
    text = scripted_config.read_text()
    with started("--config", str(scripted_config)) as parley:
        workers, state = parley.workers(), ("--state-dir", str(parley.folder / "state"))
        scripted_config.write_text("backends: {}\n")
        failed = run_here("reload", *state)
        assert (1, "") == (failed.returncode, failed.stdout)
        assert failed.stderr.startswith("parley: the old configuration stays in use: ")
        assert "models" in failed.stderr
        parley.wait_for_log("the old configuration stays in use: ")
        assert workers == parley.workers()
        assert "Hello there." == parley.chat("Hi")
        scrape = parley.scrape()
        assert "\nparley_config_last_reload_successful 0\n" in scrape
        assert "\nparley_config_file_in_use 0\n" in scrape
        scripted_config.write_text(text + "  - {id: new, targets: [{backend: up}]}\n")
        done = run_here("reload", *state)
        assert (0, "The new configuration is in use: model new added.\n") == (done.returncode, done.stdout)
        assert ["scripted", "new"] == parley.models()
        scrape = parley.scrape()
        assert '\nparley_config_reloads_total{outcome="success"} 1\n' in scrape
        assert "\nparley_config_file_in_use 1\n" in scrape


def test_a_replaced_key_file_is_read_again(scripted_config: Path, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """The configuration is read again when the file of a key or of a header is replaced; no call fails meanwhile.

    The key is replaced as Kubernetes does it: by a symbolic link to another folder. The file of the header is written
    in place, and is empty for a moment. A header that the backend lists arrives from the caller, another one does not.
    """
    key, team, draft, data = tmp_path / "data" / "key", tmp_path / "team", tmp_path / "draft", tmp_path / "data"
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(f"{name}\n")
    data.symlink_to("first")
    team.write_text("blue\n")
    fields = f'{{kind: openai, api_key: "file:{key}", headers: {{x-team: "team-${{file:{team}}}"}},'
    fields += " forward_headers: [x-tenant],"
    scripted_config.write_text(scripted_config.read_text().replace("{kind: openai,", fields))

    def sent() -> tuple[str, str]:
        headers = upstream.requests[-1].headers
        return headers["authorization"], headers["x-team"]

    with started("--config", str(scripted_config)) as parley:
        with parley.connection() as connection:
            body = json.dumps({"messages": [{"role": "user", "content": "Hi"}]})
            headers = {**parley.headers(), "X-Tenant": "t-1", "X-Other": "o-1"}
            connection.request("POST", "/v1/chat/completions", body, headers)
            assert 200 == connection.getresponse().status
        assert ("Bearer first", "team-blue") == sent()
        assert ("t-1", None) == tuple(upstream.requests[-1].headers.get(name) for name in ("x-tenant", "x-other"))
        with calls(parley) as answers:
            team.write_text("")
            time.sleep(0.7)  # longer than the pause between two looks at the files
            team.write_text("green\n")
            draft.symlink_to("second")
            draft.replace(data)
            until(lambda: ("Bearer second", "team-green") == sent(), "the new key and the new header")
            parley.wait_for_log("the new configuration is in use (backend up changed)")
        assert {200} == set(answers)
        teams = {request.headers["x-team"] for request in upstream.requests}
        assert ({"team-blue", "team-green"}, False) == (teams, "second" in parley.log)


def test_sighup_replaces_a_reconfigured_model_server(tmp_path: Path) -> None:
    """The new model server is loaded before the workers are replaced, and the old one stops after them."""
    file = tmp_path / "parley.yaml"
    text = "backends: {local: {kind: llama_cpp, slots: 1}}\nmodels: [{id: m, targets: [{backend: local}]}]\n"
    file.write_text(text)
    with started("--config", str(file), "--workers", "1") as parley:
        old = _model_servers(parley)
        file.write_text(text.replace("slots: 1", "slots: 2"))
        with left_behind(old):
            parley.process.send_signal(signal.SIGHUP)
            parley.wait_for_log("the new configuration is in use")
            assert parley.chat("Hi", model="m", max_tokens=4)
        assert 1 == len(_model_servers(parley))


def _model_servers(parley: Parley) -> list[int]:
    """Returns the process ids of the model servers."""
    return [pid for pid, line in parley.children().items() if "llama_cpp" in line]


def _status(parley: Parley, model: str) -> int:
    """Makes a call; returns its status, 0 if the connection fails."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    try:
        return parley.request("POST", "/v1/chat/completions", body)[0]
    except OSError:
        return 0


@contextmanager
def stream(parley: Parley) -> Iterator[Iterator[str]]:
    """Starts a stream; yields its lines as they arrive."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with parley.connection() as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), parley.headers())
        response = connection.getresponse()
        assert 200 == response.status
        yield (line.decode().rstrip() for line in response)


@contextmanager
def calls(parley: Parley) -> Iterator[list[int]]:
    """Makes one call after another in a thread; yields their statuses, 0 for a failed connection."""
    statuses: list[int] = []
    enough = threading.Event()

    def call() -> None:
        while not enough.is_set():
            statuses.append(_status(parley, "scripted"))

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield statuses
    finally:
        enough.set()
        thread.join()
