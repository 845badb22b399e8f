"""Signals to `parley up`: SIGINT, SIGTERM, SIGHUP, SIGKILL, and the end of its terminal."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import (
    Parley,
    in_terminal,
    left_behind,
    started,
    until,
)
from tests.upstream import Events, Gate, ScriptedUpstream, chunks, ending


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_process(scripted_config: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM leave nothing behind, and the exit code says that all went well."""
    with started("--config", str(scripted_config)) as parley:
        family = parley.children()
        assert len(family) >= 2
        with left_behind(family):
            assert 0 == parley.stop(number)


def test_ctrl_c_in_a_terminal_lets_a_running_stream_finish(scripted_config: Path, upstream: ScriptedUpstream) -> None:
    """The terminal's Ctrl-C reaches the supervisor alone: the workers drain, and the stream comes to its end."""
    gate = Gate()
    upstream.answer(Events([*chunks("Hel"), gate, *chunks("lo"), *ending()]))
    with in_terminal("--config", str(scripted_config)) as terminal, stream(terminal.parley) as lines:
        assert any("Hel" in line for line in lines)
        with left_behind(terminal.parley.children()):
            terminal.press(b"\x03")
            terminal.parley.log_says("stopping when running calls have finished")
            gate.set()
            assert "data: [DONE]" == [line for line in lines if line][-1]
            assert 0 == terminal.parley.process.wait(60)


def test_a_second_ctrl_c_stops_at_once(scripted_config: Path, upstream: ScriptedUpstream) -> None:
    """Whoever does not want to wait for a stream that never ends presses Ctrl-C again."""
    upstream.answer(Events([*chunks("Hel"), Gate()]))
    with started("--config", str(scripted_config)) as parley, stream(parley) as lines:
        assert any("Hel" in line for line in lines)
        with left_behind(parley.children()):
            parley.process.send_signal(signal.SIGINT)
            parley.log_says("repeat the signal to stop at once")
            parley.process.send_signal(signal.SIGINT)
            assert 0 == parley.process.wait(60)


def test_closing_the_terminal_stops_everything(scripted_config: Path) -> None:
    """The SIGHUP of a terminal that is gone is no wish for a new configuration."""
    with in_terminal("--config", str(scripted_config)) as terminal, left_behind(terminal.parley.children()):
        terminal.close()
        terminal.parley.process.wait(60)


def test_killing_the_supervisor_leaves_nothing_behind(scripted_config: Path) -> None:
    """kill -9 gives it no time to clean up: the kernel does."""
    with started("--config", str(scripted_config)) as parley, left_behind(parley.children()):
        parley.stop(signal.SIGKILL)


def test_after_kill_9_the_next_start_works(scripted_config: Path, tmp_path: Path) -> None:
    """A lock, sockets and a ready file that were left behind do not matter."""
    with started("--config", str(scripted_config), folder=tmp_path) as parley:
        parley.stop(signal.SIGKILL)
        key = parley.key
    with started("--config", str(scripted_config), folder=tmp_path) as again:
        assert 200 == again.request("GET", "/v1/models", key=key)[0]


def test_sighup_brings_a_new_configuration_without_a_failed_request(
    scripted_config: Path, upstream: ScriptedUpstream
) -> None:
    """Calls meanwhile are answered, a stream over it all comes to its end, and the new model is there."""
    gate = Gate()
    upstream.answer(Events([*chunks("Hel"), gate, *chunks("lo"), *ending()]))
    with started("--config", str(scripted_config), "--workers", "1") as parley, stream(parley) as lines:
        assert any("Hel" in line for line in lines)
        scripted_config.write_text(scripted_config.read_text() + "  - {id: new, targets: [{backend: up}]}\n")
        with calls(parley) as answers:
            old = parley.workers()
            parley.process.send_signal(signal.SIGHUP)
            parley.log_says("the new configuration is in use")
            assert ["scripted", "new"] == parley.models()
        assert len(answers) > 10
        assert {200} == set(answers)
        assert set(old) < set(parley.workers())
        gate.set()
        assert "data: [DONE]" == [line for line in lines if line][-1]
        until(lambda: not set(old) & set(parley.workers()), "the old worker leaves")


def test_sighup_with_a_bad_configuration_changes_nothing(scripted_config: Path) -> None:
    """One line says what is wrong; the old workers go on."""
    with started("--config", str(scripted_config)) as parley:
        workers = parley.workers()
        scripted_config.write_text("backends: {}\n")
        parley.process.send_signal(signal.SIGHUP)
        parley.log_says("the old configuration stays in use: ")
        assert workers == parley.workers()
        assert "Hello there." == parley.ask("Hi")


def test_sighup_replaces_a_model_server_that_is_configured_anew(tmp_path: Path) -> None:
    """The new one is loaded before the workers change over, and the old one leaves after them."""
    file = tmp_path / "parley.yaml"
    text = "backends: {local: {kind: llama_cpp, slots: 1}}\nmodels: [{id: m, targets: [{backend: local}]}]\n"
    file.write_text(text)
    with started("--config", str(file), "--workers", "1") as parley:
        old = _model_servers(parley)
        file.write_text(text.replace("slots: 1", "slots: 2"))
        with left_behind(old):
            parley.process.send_signal(signal.SIGHUP)
            parley.log_says("the new configuration is in use")
            assert parley.ask("Hi", model="m", max_tokens=4)
        assert 1 == len(_model_servers(parley))


def _model_servers(parley: Parley) -> list[int]:
    """The process ids of its model servers."""
    return [pid for pid, line in parley.children().items() if "llama_cpp" in line]


def _status(parley: Parley, model: str) -> int:
    """The status of one call; 0 where the connection fails."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    try:
        return parley.request("POST", "/v1/chat/completions", body)[0]
    except OSError:
        return 0


@contextmanager
def stream(parley: Parley) -> Iterator[Iterator[str]]:
    """Starts a stream; gives the lines of it as they come."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with parley.connection() as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), parley.headers())
        response = connection.getresponse()
        assert 200 == response.status
        yield (line.decode().rstrip() for line in response)


@contextmanager
def calls(parley: Parley) -> Iterator[list[int]]:
    """Calls one after another on a thread meanwhile; gives their statuses, 0 for a failed connection."""
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
