"""The four programs of the client's README, and the same with the generated stubs alone, against `parley up`."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pages import ROOT, blocks
from tests.processes import PATIENCE, Parley
from tests.relay import Relay
from tests.upstream import Events, Gate, ScriptedUpstream, chunks, completion, stream

README = ROOT / "service" / "client" / "README.md"
PROGRAMS = [text for language, text in blocks(README) if language == "python"]
RAW = Path(__file__).parent / "grpc_clients" / "raw_stubs"
FORMS = pytest.mark.parametrize("form", ["client", "raw_stubs"])
MOST_LINES = [6, 15, 8, 6]
NAMES = ["ask", "tools", "stream", "session"]
CALLS = (("get_weather", '{"city": "Paris"}'), ("to_fahrenheit", '{"celsius": 21.0}'))


def program(form: str, place: int) -> str:
    """Returns a program: that of the README, or the one with the stubs."""
    return PROGRAMS[place] if form == "client" else (RAW / f"{NAMES[place]}_client.py").read_text()


def lines(text: str) -> int:
    """Returns the number of lines, without empty ones and the module's docstring."""
    return len([line for line in text.splitlines() if line.strip() and not line.startswith('"""')])


@contextmanager
def running(form: str, place: int, stack: Parley, address: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Runs a program against a model that the upstream answers, at the address of the stack or at another."""
    text = program(form, place).replace("127.0.0.1:50051", address or stack.grpc)
    text = re.sub('model="(smollm2|support)"', 'model="scripted"', text)
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        env=os.environ | {"KEY": stack.key},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def printed(form: str, place: int, stack: Parley) -> str:
    """Returns what a program prints."""
    with running(form, place, stack) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert 0 == process.returncode, err
    return out


def test_the_programs_are_short() -> None:
    """Each program has at most the lines that its subject needs, and the README states the lengths of both forms."""
    assert all(lines(text) <= most for text, most in zip(PROGRAMS, MOST_LINES, strict=True))
    stated = re.findall(r"^\| [^|]+ \| (\d+) \| (\d+) \|$", README.read_text(), re.MULTILINE)
    measured = [(str(lines(PROGRAMS[place])), str(lines(program("raw", place)))) for place in range(4)]
    assert measured == stated


@FORMS
def test_a_question(stack: Parley, upstream: ScriptedUpstream, form: str) -> None:
    """The answer and its tokens are printed."""
    assert "Hello there. 12\n" == printed(form, 0, stack)


@FORMS
def test_a_tool_loop(stack: Parley, upstream: ScriptedUpstream, form: str) -> None:
    """Both functions are called with the model's arguments, and the model receives their results."""
    for number, (name, arguments) in enumerate(CALLS):
        call = {"id": f"call-{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        upstream.answer(completion(None, tool_calls=[call]))
    upstream.answer(completion("It is 69.8 °F."))
    assert "It is 69.8 °F.\n" == printed(form, 1, stack)
    results = [one["content"] for one in upstream.requests[-1].json["messages"] if one["role"] == "tool"]
    assert ['{"celsius": 21.0}', "69.8"] == results
    tools = [tool["function"] for tool in upstream.requests[0].json["tools"]]
    assert [name for name, _ in CALLS] == [tool["name"] for tool in tools]
    assert [["city"], ["celsius"]] == [tool["parameters"]["required"] for tool in tools]


@FORMS
def test_a_stream_survives_a_broken_connection(stack: Parley, upstream: ScriptedUpstream, form: str) -> None:
    """After the connection breaks in the middle of the stream, the repeated answer is printed from where it stopped."""
    upstream.answer(Events([*chunks("Hel"), Gate()]), stream("Hello", " there."))
    with Relay(stack.grpc) as relay, running(form, 2, stack, relay.address) as process:
        assert process.stdout is not None
        assert "Hel" == process.stdout.read(3)
        relay.cut()
        out, err = process.communicate(timeout=PATIENCE)
    assert (0, "lo there.12 completed None\n") == (process.returncode, out), err
    assert 2 == len(upstream.requests)


@FORMS
def test_a_session_with_an_idempotent_retry(stack: Parley, upstream: ScriptedUpstream, form: str) -> None:
    """The repeated turn prints the same answer, and the model was called once for each turn."""
    upstream.answer(completion("Paris."), completion("Berlin."))
    assert "['Berlin.', 'Berlin.']\n" == printed(form, 3, stack)
    assert 2 == len(upstream.requests)
    assert ["Paris.", "And of Germany?"] == [one["content"] for one in upstream.requests[1].json["messages"][-2:]]
