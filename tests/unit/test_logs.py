"""Log lines for a terminal, and an output that cannot be written."""

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from datetime import datetime
from random import Random
from typing import Any

import pytest
import structlog

from parley.logs import Level
from parley.logs import configuration as logs
from parley.logs.output import Output
from parley.logs.recent import LONGEST, RecentLines
from parley.logs.terminal import render
from parley.supervisor.process import print_notice

_LEVELS: tuple[Level, ...] = ("debug", "error", "info")
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
    return render(CALL | fields).decode()


def test_an_answer_is_one_line() -> None:
    """A call is one line: time, level, method, milliseconds, status, request id, model and target, tokens, account."""
    assert (
        "14:38:50 INFO    CreateChatCompletion  340 ms  OK  dde8f28b  support → local/qwen3  27+17 tokens  default"
        == line()
    )


def test_a_failed_call_has_its_reason() -> None:
    """A failed call has its reason, its message and its cause; its level is red."""
    text = line(
        status="INTERNAL", level="error", reason="INTERNAL", error="Internal Server Error", cause="KeyError('a')"
    )
    assert text.startswith("\x1b[31m14:38:50 ERROR   \x1b[0m")
    assert text.endswith("INTERNAL  dde8f28b  INTERNAL: Internal Server Error  (KeyError('a'))")


def test_a_line_fits_the_terminal() -> None:
    """A call is one line of 120 columns, however long its message is."""
    text = line(reason="UPSTREAM_REJECTED", error="too long " * 100)
    assert (120, "…", 1) == (len(text), text[-1], len(text.splitlines()))


@pytest.mark.parametrize(
    ("columns", "end"),
    [
        (105, "OK  dde8f28b  support → local/qwen3  27+17 tokens  default"),
        (100, "OK  dde8f28b  support → local/qwen3  27+17 tokens"),
        (85, "OK  dde8f28b  support  27+17 tokens"),
        (80, "OK  support  27+17 tokens"),
    ],
)
def test_a_narrow_terminal_has_the_tokens(columns: int, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a narrow terminal the account, the target and the request id are left out, in this order."""
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, 24)))
    text = line()
    assert text.endswith(f"340 ms  {end}")
    assert len(text) <= columns


def test_control_characters_are_replaced() -> None:
    """Control characters in a caller's text are replaced."""
    text = line(model="a\x1b[2J\nb\x9b\u202e", event="other")
    assert "model=a�[2J�b��" in text
    assert text.isprintable()


def test_control_characters_of_an_exception_are_replaced() -> None:
    """A traceback keeps its lines, and shows the control characters of a message as marks."""
    text = line(event="other", exception="Traceback:\n\tValueError: a\x1b]0;title\x07b\x9b2J")
    assert text.endswith("\nTraceback:\n\tValueError: a�]0;title�b�2J")


CONTROLS = "\x1b[2J\x07\x7f\x9b2J\u202e\u2066\u200f\u2028\U000e0041"


@pytest.fixture
def restored() -> Iterator[None]:
    """Restores the setup of log lines: the loggers that other tests have used keep their list of processors."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    logs.set_level("info")


@pytest.mark.usefixtures("restored")
def test_control_characters_in_json_are_escaped(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A JSON line that is shown on a terminal does not control it, and has the same content."""
    logs.configure(human=False, output=Output(1))
    structlog.get_logger().info("call", model=CONTROLS, other="é😀")
    (written,) = capfdbinary.readouterr().out.splitlines()
    assert json.loads(written)["model"] == CONTROLS
    text = written.decode()
    assert "é😀" in text
    assert text.isprintable()


def test_control_characters_in_a_notice_are_replaced(capfd: pytest.CaptureFixture[str]) -> None:
    """A notice of the supervisor may contain text of a child process."""
    print_notice(f"envoy: {CONTROLS}")
    assert "parley: envoy: �[2J���2J�����\n" == capfd.readouterr().err


def test_other_events_show_their_fields() -> None:
    """Other events have their fields as names and values, in the order of logging."""
    event = {"event": "backend changed", "level": "warning", "timestamp": "2026-11-26T14:38:50Z", "backend": "vllm"}
    text = render(event | {"healthy": False, "cause": None}).decode()
    assert "\x1b[33m14:38:50 WARNING \x1b[0mbackend changed  backend=vllm  healthy=False" == text


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe of one page: its read end and its write end."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    os.close(writer)


def test_a_blocked_reader_loses_lines_and_gets_their_number(pipe: tuple[int, int]) -> None:
    """Lines that a full pipe cannot hold are dropped without blocking; later their number is written first."""
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
    assert 100 - len(non_streaming) == sum(map(int, lost)) == output.lines_lost
    assert [b"next", b""] == after[-2:]
    os.close(reader)
    assert 0 == fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK, "the flag is shared with other processes"


def test_a_closed_pipe_loses_lines(pipe: tuple[int, int]) -> None:
    """Writing to a pipe without a reader raises nothing."""
    reader, writer = pipe
    output = Output(writer)
    os.close(reader)
    output.write(b"one\n")
    output.write(b"two\n")
    assert 2 == output.lines_lost


def test_a_full_disk_loses_lines() -> None:
    """Writing to a full device raises nothing."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    Output(descriptor).write(b"one\n")
    os.close(descriptor)


@pytest.mark.usefixtures("restored")
def test_a_new_level_holds_for_the_loggers_in_use() -> None:
    """A logger that has been used, and is cached, follows each change of the level."""
    reading, writing = os.pipe()
    logs.configure(level="warning", human=False, output=Output(writing))
    logger = structlog.get_logger()
    logger.info("before")
    for level in _LEVELS:
        logs.set_level(level)
        logger.debug("debug", of=level)
        logger.info("info", of=level)
        logger.error("error", of=level)
    events = [json.loads(text) for text in os.read(reading, 65_536).splitlines()]
    assert ["debug debug", "debug info", "debug error", "error error", "info info", "info error"] == [
        f"{event['of']} {event['event']}" for event in events
    ]
    os.close(reading)
    os.close(writing)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("human", [False, True], ids=["json", "terminal"])
def test_the_latest_lines_of_calls_are_kept(capfdbinary: pytest.CaptureFixture[bytes], *, human: bool) -> None:
    """Lines that name a request are kept as JSON, whatever is written, without secrets."""
    recent = RecentLines()
    logs.configure(human=human, output=Output(1), recent=recent)
    logger = structlog.get_logger()
    for number in range(1_001):
        logger.info("call", fields={"request_id": f"id-{number}", "status": "OK"})
    logger.warning("call", fields={"request_id": "id-7", "error": "Bearer sk-secret-0123456789", "model": CONTROLS})
    logger.info("other")
    logger.debug("call", fields={"request_id": "id-8", "status": "below the level"})
    logger.info("call", fields={"request_id": "id-9", "error": "x" * LONGEST})
    assert ["id-7", "id-1000", "id-999"] == [line.request_id for line in recent.find("", 3)]
    assert 1_002 == len(recent.find("", 2_000))
    latest, first = recent.find("id-7", 5)
    found = json.loads(latest.line)
    assert (CONTROLS, "Bearer …", latest.time) == (found["model"], found["error"], found["timestamp"])
    assert latest.line.decode().isprintable()
    assert (["id-9", "id-8"], []) == ([line.request_id for one in ("id-9", "id-8") for line in recent.find(one, 2)], [])
    assert human or latest.line in capfdbinary.readouterr().out
    assert "OK" == json.loads(first.line)["status"]
    assert re.fullmatch(r"....-..-..T..:..:..\.\d{6}Z", latest.time)
    assert abs(datetime.fromisoformat(latest.time).timestamp() - time.time()) < 60


def test_the_lines_that_are_kept_have_a_size() -> None:
    """New lines replace the oldest ones, also where they differ in length; those that are left are complete."""
    recent, random = RecentLines(), Random(1)
    kept = [
        b'{"request_id":"id-%d","timestamp":"now","text":"%b"}' % (number, b"x" * random.randrange(2_000))
        for number in range(4_000)
    ]
    for place, line in enumerate(kept):
        recent.append(line + b"\n")
        if place in {10, 800, 3_999}:
            found = recent.find("", 5_000)
            expected = [(f"id-{number}", "now", kept[number]) for number in range(place, place - len(found), -1)]
            assert expected == found
            assert min(place + 1, 600) <= len(found) <= 900
