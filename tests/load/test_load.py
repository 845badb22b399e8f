"""The benchmark's tools count CPU time, and detect incomplete answers and failed calls."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.load import accounting, canned
from tests.load.canned import WrongAnswerError
from tests.load.client import RestCaller, Target, check, unchunk
from tests.load.load import drive, percentile
from tests.load.stack import KINDS, upstream
from tests.load.upstream import chunk

_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_PIECES = [canned.role(), *map(canned.delta, canned.TOKENS), *canned.ending()]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of the upstream process."""
    with upstream() as running:
        yield running.address


def _target(kind: str, address: str = "127.0.0.1:1", *, session: bool = False) -> Target:
    return Target(address=address, path="/v1/chat/completions", model=kind, kind=kind, session=session)


def _stream(pieces: list[bytes]) -> bytes:
    return _HEAD + b"".join(map(chunk, pieces)) + b"0\r\n\r\n"


@pytest.mark.parametrize("kind", KINDS)
async def test_complete_answers_are_accepted(kind: str, address: str) -> None:
    """Every kind of answer is accepted twice on one connection, with the latencies of all paced events."""
    caller = RestCaller(_target(kind, address))
    timings = [await caller.call() for _ in range(2 if kind != "paced" else 1)]
    await caller.close()
    assert all(0 < timing.first <= timing.total for timing in timings)
    assert (canned.EVENTS if kind == "paced" else 0) == len(timings[-1].lags)


@pytest.mark.parametrize("missing", [1, 50, 100, -3, -1])
def test_incomplete_streams_are_rejected(missing: int) -> None:
    """A stream without a delta, its finish reason or [DONE] is rejected, and a complete one is accepted."""
    check(_target("burst"), _stream(_PIECES))
    short = list(_PIECES)
    del short[missing]
    with pytest.raises(WrongAnswerError):
        check(_target("burst"), _stream(short))


def test_paced_events_must_be_complete_and_in_order() -> None:
    """Missing timestamps, or timestamps out of order, are rejected."""
    stamps = [canned.stamp(number) for number in range(canned.EVENTS)]
    canned.check_text("paced", "".join(stamps), "stop")
    for wrong in (stamps[1:], [*stamps[:50], *stamps[49:]], stamps[::-1]):
        with pytest.raises(WrongAnswerError):
            canned.check_text("paced", "".join(wrong), "stop")


def test_another_status_is_rejected() -> None:
    """The error for a 503 shows its body."""
    with pytest.raises(WrongAnswerError, match=r"503 .*no workers"):
        check(_target("unary"), b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 10\r\n\r\nno workers")


def test_a_missing_session_is_rejected() -> None:
    """An answer without a session is rejected if the model keeps sessions."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n" + canned.completion()
    check(_target("unary"), answer)
    with pytest.raises(WrongAnswerError, match="session"):
        check(_target("unary", session=True), answer)


async def test_calls_that_fail_are_counted(address: str) -> None:
    """Every call of an unknown model, which the upstream answers with 404, is a failure of the run."""
    callers = [RestCaller(_target("unknown", address)) for _ in range(2)]
    outcome = await drive(callers, calls=6, seconds=10)
    await asyncio.gather(*(caller.close() for caller in callers))
    assert (0, 6) == (len(outcome.timings), len(outcome.failures))
    assert "404" in outcome.failures[0]


def test_a_chunked_body_is_joined() -> None:
    """The data of all chunks are joined without their frames."""
    assert b"onetwo" == unchunk(chunk(b"one") + chunk(b"two") + b"0\r\n\r\n")


def test_percentiles_are_values_that_occurred() -> None:
    """The 99th percentile of 1 to 100 is 99, the median 50."""
    values = [float(value) for value in range(100, 0, -1)]
    assert (50.0, 99.0, 100.0) == tuple(percentile(values, share) for share in (0.5, 0.99, 1.0))


def test_cpu_time_of_a_thread_that_ended_is_counted() -> None:
    """The CPU time of an ended thread remains in that of its process."""
    before = accounting.cpu_ns(os.getpid())
    used = []
    thread = threading.Thread(target=lambda: used.append(_burn_ns()))
    thread.start()
    thread.join()
    assert used[0] <= accounting.cpu_ns(os.getpid()) - before


def _burn_ns() -> int:
    """Uses CPU in this thread; returns the nanoseconds."""
    start = time.thread_time_ns()
    sum(range(300_000))
    return time.thread_time_ns() - start


def test_a_process_that_ends_fails_the_measurement() -> None:
    """A child process is part of the tree; after its end, the measurement fails."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        before = accounting.snapshot(os.getpid())
        assert "worker" == before[child.pid].role
        child.communicate(b"\n")
    with pytest.raises(accounting.VanishedError):
        accounting.spent(before, accounting.snapshot(os.getpid()))


def test_ended_children_of_a_server_count() -> None:
    """The CPU time of a child is added to its parent's ended children at its end."""
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    script = '"$0" -c "$1"; echo done; read line'
    command = ["sh", "-c", script, sys.executable, burn]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert "done\n" == server.stdout.readline()
        assert accounting.ended_ns(server.pid) > 100_000_000
        assert server.stdin
        server.stdin.close()


def test_time_is_added_up_by_role() -> None:
    """New processes count from zero, others from their previous value."""
    before = {1: accounting.Sample("worker", 10), 2: accounting.Sample("envoy", 5)}
    after = {1: accounting.Sample("worker", 30), 2: accounting.Sample("envoy", 6), 3: accounting.Sample("worker", 4)}
    assert {"worker": 24, "envoy": 1} == accounting.spent(before, after)


def test_peak_memory_includes_what_was_freed() -> None:
    """The peak of a process that has allocated 60 MB for a moment is at least that."""
    code = "large = bytearray(60 * 2**20); del large; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        assert 60 < accounting.peak_memory(child.pid)["supervisor"]
        child.communicate(b"\n")
