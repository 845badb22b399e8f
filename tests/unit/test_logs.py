"""Log lines: what a person sees, and an output that cannot be written."""

import fcntl
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from parley.logs.output import Output
from parley.logs.terminal import render

ID = "dde8f28b-d7e1-49f7-8a9c-92b82c92de32"
CALL: dict[str, Any] = {
    "event": "call",
    "level": "info",
    "timestamp": "2026-11-26T14:38:50.153802Z",
    "method": "CreateChatCompletion",
    "status": "OK",
    "ms": 339.7,
    "request_id": ID,
    "account": "default",
    "model": "support",
    "target": "local/qwen3",
    "prompt_tokens": 27,
    "completion_tokens": 17,
}


def line(**fields: Any) -> str:
    """Renders an event for a terminal."""
    return render(None, "info", CALL | fields).decode()


def test_an_answer_is_one_line() -> None:
    """Time, level, method, milliseconds, status, request, model and target, tokens, account."""
    assert (
        "14:38:50 INFO    CreateChatCompletion  340 ms  OK  dde8f28b  support → local/qwen3  27+17 tokens  default"
        == line()
    )


def test_a_failure_says_why() -> None:
    """Its reason, the message, and what only the operator may read; an error is red."""
    text = line(
        status="INTERNAL", level="error", reason="INTERNAL", error="Internal Server Error", cause="KeyError('a')"
    )
    assert text.startswith("\x1b[31m14:38:50 ERROR   \x1b[0m")
    assert text.endswith("INTERNAL  dde8f28b  INTERNAL: Internal Server Error  (KeyError('a'))")


def test_a_line_fits_the_terminal() -> None:
    """However long a message is, a call is one line of 120 columns."""
    text = line(reason="UPSTREAM_REJECTED", error="too long " * 100)
    assert (120, "…", 1) == (len(text), text[-1], len(text.splitlines()))


def test_a_callers_text_moves_no_cursor() -> None:
    """Control characters in what a caller has sent are replaced."""
    text = line(model="a\x1b[2J\nb\x9b\u202e", event="other")
    assert "model=a�[2J�b��" in text
    assert text.isprintable()


def test_other_events_show_their_fields() -> None:
    """Names and values, in the order in which they are logged."""
    event = {"event": "backend changed", "level": "warning", "timestamp": "2026-11-26T14:38:50Z", "backend": "vllm"}
    text = render(None, "warning", event | {"healthy": False, "cause": None}).decode()
    assert "\x1b[33m14:38:50 WARNING \x1b[0mbackend changed  backend=vllm  healthy=False" == text


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of one page: its ends to read and to write."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    os.close(writer)


def test_a_stuck_reader_costs_lines_and_says_so(pipe: tuple[int, int]) -> None:
    """Lines that do not fit are dropped without waiting; once there is room, their number comes first."""
    reader, writer = pipe
    output = Output(writer)
    for number in range(100):
        output.write(b"%099d\n" % number)
    kept = os.read(reader, 65536).split(b"\n")
    output.write(b"next\n")
    after = os.read(reader, 65536).split(b"\n")
    non_streaming = [one for one in kept if len(one) == 99]
    assert [b"%099d" % number for number in range(len(non_streaming))] == non_streaming
    lost = re.findall(rb"\((\d+) log lines were lost: the output could not be written\)", b"\n".join(kept + after))
    assert 100 - len(non_streaming) == sum(map(int, lost))
    assert [b"next", b""] == after[-2:]
    os.close(reader)
    assert 0 == fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK, "the flag is shared with other processes"


def test_a_reader_that_has_gone_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    """Writing to a pipe without a reader raises nothing."""
    reader, writer = pipe
    output = Output(writer)
    os.close(reader)
    output.write(b"one\n")
    output.write(b"two\n")


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    """Writing to a device that is always full raises nothing."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    Output(descriptor).write(b"one\n")
    os.close(descriptor)
