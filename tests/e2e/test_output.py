"""Calls and signals while the output and the log of `parley up` cannot be written."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import Parley, launch, left_behind, run_here, wait_ready
from tests.upstream import ScriptedUpstream

CALLS = 300  # their log lines, of about 500 bytes each, exceed the capacity of a pipe


@contextmanager
def logging_to_a_pipe(config: Path, folder: Path) -> Iterator[tuple[Parley, int, str]]:
    """Runs `parley up 2>&1 | reader`: Parley, the reader's end of the pipe, and an API key."""
    created = run_here("keys", "create", "--name", "one", "--json", "--state-dir", str(folder / "state"))
    reader, writer = os.pipe()
    parley = launch("--config", str(config), folder=folder, pipe=writer)
    os.close(writer)
    try:
        wait_ready(parley)
        yield parley, reader, json.loads(created.stdout)["key"]
    finally:
        with left_behind(parley.children()):
            if parley.process.poll() is None:
                parley.process.kill()
                parley.process.wait()


def call(parley: Parley, key: str) -> int:
    """Makes a call; returns its status."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hello"}], "store": False}
    return parley.request("POST", "/v1/chat/completions", body, key)[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_reader_of_the_log_ends(
    scripted_config: Path, upstream: ScriptedUpstream, tmp_path: Path, number: signal.Signals
) -> None:
    """After `tee` in `parley up 2>&1 | tee log` is killed, calls are answered and a signal stops the service."""
    with logging_to_a_pipe(scripted_config, tmp_path) as (parley, reader, key):
        assert 200 == call(parley, key)
        os.close(reader)
        assert [200] * 5 == [call(parley, key) for _ in range(5)]
        parley.process.send_signal(signal.SIGHUP)
        assert [200] * 5 == [call(parley, key) for _ in range(5)]
        assert 0 == parley.stop(number)


def test_the_reader_of_the_log_is_stuck(scripted_config: Path, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """While the pipe is full, calls are answered and a signal is handled."""
    with logging_to_a_pipe(scripted_config, tmp_path) as (parley, reader, key):
        assert {200} == {call(parley, key) for _ in range(CALLS)}
        assert 0 == parley.stop(signal.SIGTERM)
        os.close(reader)
