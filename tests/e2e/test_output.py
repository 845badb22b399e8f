"""What `parley up` prints and logs cannot be written any more: calls and signals work as before."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import Parley, launch, left_behind, run_here, wait_ready
from tests.upstream import ScriptedUpstream

CALLS = 300  # their log lines, about 500 bytes each, are more than a pipe holds


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


def asks(parley: Parley, key: str) -> int:
    """Makes a call; returns its status."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hello"}], "store": False}
    return parley.request("POST", "/v1/chat/completions", body, key)[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_reader_of_the_log_ends(
    scripted_config: Path, upstream: ScriptedUpstream, tmp_path: Path, number: signal.Signals
) -> None:
    """As with `parley up 2>&1 | tee log` when `tee` is killed: calls are answered, and a signal stops the service."""
    with logging_to_a_pipe(scripted_config, tmp_path) as (parley, reader, key):
        assert 200 == asks(parley, key)
        os.close(reader)
        assert [200] * 5 == [asks(parley, key) for _ in range(5)]
        parley.process.send_signal(signal.SIGHUP)
        assert [200] * 5 == [asks(parley, key) for _ in range(5)]
        assert 0 == parley.stop(number)


def test_the_reader_of_the_log_is_stuck(scripted_config: Path, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """The pipe is full, as with a pager that is not at its end: calls are answered, and a signal is handled."""
    with logging_to_a_pipe(scripted_config, tmp_path) as (parley, reader, key):
        assert {200} == {asks(parley, key) for _ in range(CALLS)}
        assert 0 == parley.stop(signal.SIGTERM)
        os.close(reader)
