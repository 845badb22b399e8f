"""`parley chat` as a real process that calls the real server."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from parley.cli.chat.access import Access, address_of
from parley.core.errors import UpstreamUnavailable
from parley.supervisor.errors import CommandError
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley_client import RateLimitError, UnavailableError
from tests.processes import COMMAND, PATIENCE, environment, until
from tests.rpc.calling import Metadata, chat_request
from tests.rpc.conftest import Worker
from tests.rpc.scripted import chunks

INTERRUPTIBLE = ("env", "--default-signal=INT")
"""Lets Ctrl-C interrupt a command even if a shell started the tests in the background, which ignores it."""
BUSY_SECONDS = 9.0  # includes the start of the command; the release of a session takes much less


@pytest.fixture
def talkative(worker: Worker) -> Worker:
    """The server; its model answers `Hello`."""
    worker.backend.answer = lambda _: chunks("Hel", "lo")
    return worker


def talk(
    worker: Worker, lines: str, *options: str, key: str | None = None, address: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Runs `parley chat` with lines as its input."""
    return subprocess.run(
        [COMMAND, "chat", "--address", address or worker.address, *options],
        input=lines,
        env=environment(PARLEY_API_KEY=worker.keys["ada"] if key is None else key),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def sent(worker: Worker) -> list[list[str]]:
    """Returns the texts that the model received, for each call."""
    return [[m.content.string_value for m in call.request.messages] for call in worker.backend.calls]


class Screen:
    """A terminal that runs `parley chat`."""

    def __init__(self, descriptor: int, process: "subprocess.Popen[bytes]") -> None:
        self._descriptor = descriptor
        self.process = process
        self.text = ""

    def shows(self, text: str, times: int = 1) -> None:
        """Waits for a text."""
        end = time.monotonic() + PATIENCE
        while self.text.count(text) < times:
            assert time.monotonic() < end, f"waited in vain for {text!r}: {self.text}"
            if select.select([self._descriptor], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self._descriptor, 65536).decode()
                except OSError as error:  # nothing has the other end open
                    ended = f"the command ended with {self.process.wait(PATIENCE)} before {text!r}: {self.text}"
                    raise AssertionError(ended) from error

    def press(self, keys: str) -> None:
        """Sends bytes; Ctrl-C is 3, Ctrl-D is 4."""
        os.write(self._descriptor, keys.encode())


@contextmanager
def in_terminal(worker: Worker, *options: str) -> Iterator[Screen]:
    """Runs `parley chat` in a terminal, at the latest until the block ends."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *INTERRUPTIBLE, COMMAND, "chat", "--address", worker.address, *options],
        env=environment(PARLEY_API_KEY=worker.keys["ada"], TERM="dumb"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield Screen(ours, process)
    finally:
        process.kill()
        process.wait(PATIENCE)
        os.close(ours)


def test_a_conversation_through_a_pipe(talkative: Worker, tmp_path: Path) -> None:
    """Only answers are on stdout; the turns share a session, whose id is on stderr."""
    first = talk(talkative, "one\n\ntwo\n", "--model", "kept")
    assert (0, "Hello\nHello\n") == (first.returncode, first.stdout)
    command = first.stderr.strip().removeprefix("To go on: parley ").split()
    file = tmp_path / "key"
    file.write_text(talkative.keys["ada"] + "\n")
    second = talk(talkative, "three", *command[1:], "--key-file", str(file), key="")
    assert (0, "Hello\n") == (second.returncode, second.stdout)
    texts = ["one", "Hello", "two", "Hello", "three"]
    assert [texts[:1], texts[:3], texts] == sent(talkative)


def test_a_model_that_keeps_no_sessions(talkative: Worker) -> None:
    """Without sessions every call sends the complete conversation, and no session id is printed."""
    result = talk(talkative, "one\ntwo\n", "--model", "stateless")
    assert (0, "Hello\nHello\n", "") == (result.returncode, result.stdout, result.stderr)
    assert [["one"], ["one", "Hello", "two"]] == sent(talkative)


def test_one_question(talkative: Worker) -> None:
    """`--once` answers its text with what the pipe contains as one turn, whatever its lines are."""
    result = talk(talkative, "line one\n/exit\n", "--model", "stateless", "--system", "Be brief", "--once", "Sum up")
    assert (0, "Hello\n", "") == (result.returncode, result.stdout, result.stderr)
    assert [["Be brief", "Sum up\n\nline one\n/exit\n"]] == sent(talkative)


def test_an_answer_that_is_cut_off(worker: Worker) -> None:
    """An answer that ends at its limit of tokens is printed, and stderr says that it is not whole."""
    cut = chunks("Hel")
    cut[-1].choices[0].finish_reason = "length"
    worker.backend.answer = lambda _: cut
    result = talk(worker, "", "--model", "stateless", "--once", "one")
    assert ("Hel\n", "parley: the answer is cut off at the limit of tokens\n") == (result.stdout, result.stderr)


def test_a_question_of_the_pipe_alone(talkative: Worker) -> None:
    """`--once -` sends what the pipe contains, unchanged; nothing at all is a mistake."""
    assert 0 == talk(talkative, "one\ntwo", "--once", "-").returncode
    assert [["one\ntwo"]] == sent(talkative)
    result = talk(talkative, "", "--once", "-")
    assert (1, "parley: there is no question; give --once a text, or a pipe\n") == (result.returncode, result.stderr)


def test_an_image_through_the_pipe_and_one_by_its_path(talkative: Worker, tmp_path: Path) -> None:
    """An image in the pipe and one of `--image` are sent beside the question."""
    (tmp_path / "red.gif").write_bytes(b"GIF89a")
    result = talk(talkative, "GIF87a", "--image", str(tmp_path / "red.gif"), "--once", "Compare @red.gif")
    assert (0, "Hello\n") == (result.returncode, result.stdout)
    message = str(talkative.backend.calls[0].request.messages[0])
    assert all(f"data:image/gif;base64,{data}" in message for data in ("R0lGODdh", "R0lGODlh"))
    assert "Compare @red.gif" in message


def test_control_characters_are_not_printed(worker: Worker) -> None:
    """Control characters in an answer are not printed."""
    worker.backend.answer = lambda _: chunks("a\x1b[2J", "\tb\r\nc")
    assert "a[2J\tb\nc\n" == talk(worker, "one").stdout


@pytest.mark.parametrize(
    ("options", "key", "message"),
    [
        ((), "", "there is no API key; set PARLEY_API_KEY, or name a file that has one with --key-file"),
        (
            (),
            "sk-nonsense",
            "Invalid API key; check PARLEY_API_KEY or --key-file, or create one: `parley keys create --name NAME`",
        ),
        ((), "sk-ä", "PARLEY_API_KEY has no API key; it must hold one and nothing else"),
        (("--key-file", "/nowhere"), "", "/nowhere cannot be read (No such file or directory)"),
        (("--key-file", "/dev/null"), "", "/dev/null has no API key; it must hold one and nothing else"),
        (("--model", "nope"), None, 'Unknown model "nope"'),
        (("--no-tls", "--ca", "ca.pem"), None, "--no-tls excludes --ca, --cert and --cert-key; give either"),
        (("--cert", "c.pem"), None, "--cert and --cert-key belong together; give both"),
        (
            ("--session", "x", "--system", "y"),
            None,
            "--system is that of a new session; leave out --session, or use /system at the prompt",
        ),
        (("--session", "nope"), None, 'Unknown session "nope"'),
    ],
)
def test_mistakes(talkative: Worker, options: tuple[str, ...], key: str | None, message: str) -> None:
    """A mistake is reported in one line, without an answer."""
    result = talk(talkative, "one\ntwo\n", *options, key=key)
    assert (1, "") == (result.returncode, result.stdout)
    assert f"parley: {message}\n" == result.stderr
    assert [] == talkative.backend.calls


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))",
            "the connection to h:1 broke before the answer was complete; send the question again",
        ),
        (
            "connections to all backends failing; last error: ipv4:127.0.0.1:1: health check call failed; will retry",
            "the service at h:1 is not ready; try again in a moment",
        ),
        (
            "DNS resolution failed for h:1: [Domain name not found]",
            "nothing answers at h:1 (Domain name not found); start `parley up`, or give another --address, or --no-tls",
        ),
    ],
)
def test_an_error_of_the_connection_says_what_to_do(message: str, shown: str) -> None:
    """Messages of gRPC, which describe the connection, become what a user can do."""
    error = UnavailableError(message, grpc.StatusCode.UNAVAILABLE)
    assert shown == Access("h:1", "key", None).explain(error)


def test_an_error_says_when_to_try_again() -> None:
    """The delay of the service takes the place of `later`, unless the message names it."""
    shown = {
        "The model is busy; try again later": "The model is busy; try again in 70 s",
        "2 of 2 calls a minute are made; try again in 12 s": "2 of 2 calls a minute are made; try again in 12 s",
        "The key has too many calls": "The key has too many calls; try again in 70 s",
    }
    for message, expected in shown.items():
        error = RateLimitError(message, grpc.StatusCode.RESOURCE_EXHAUSTED, retry_delay=69.5)
        assert expected == Access("h:1", "key", None).explain(error)


@pytest.mark.parametrize("address", ["", "localhost", "http://127.0.0.1:8080", "a b:1"])
def test_an_address_that_grpc_cannot_use(talkative: Worker, address: str) -> None:
    """An address without a port, or that of the REST listener, is reported with an example of a right one."""
    with pytest.raises(CommandError, match="is not an address of gRPC; give the gRPC listener's HOST:PORT"):
        address_of(address)
    assert talkative.address == address_of(talkative.address)


def test_an_unreachable_server(talkative: Worker) -> None:
    """The error of an unreachable server names the address and the remedy."""
    result = talk(talkative, "one", address="127.0.0.1:1")
    assert (1, 1) == (result.returncode, len(result.stderr.splitlines()))
    assert "parley: nothing answers at 127.0.0.1:1 (Connection refused); start `parley up`" in result.stderr


def test_ctrl_c_cancels_an_answer_and_ctrl_d_exits(talkative: Worker) -> None:
    """Ctrl-C cancels the answer and the session continues without it; Ctrl-D exits and prints the session's id."""
    gate = asyncio.Event()
    with in_terminal(talkative) as screen:
        screen.shows("> ")
        screen.press("one\n")
        screen.shows("Hello")
        screen.shows("> ", 2)
        talkative.backend.answer = lambda _: [chunks("partly")[0], gate]
        screen.press("two\n")
        screen.shows("partly")
        screen.press("\x03")
        screen.shows("(stopped)")
        talkative.run(asyncio.wait_for(talkative.backend.closed.wait(), PATIENCE))
        talkative.backend.answer = lambda _: chunks("again")
        screen.shows("> ", 3)
        screen.press("three\n")
        screen.shows("again")
        screen.shows("> ", 4)
        screen.press("\x04")
        screen.shows("To go on: parley chat --model kept --session 0")
        assert 0 == screen.process.wait(PATIENCE)
    assert ["one", "Hello", "three"] == sent(talkative)[-1]


def test_an_error_does_not_end_the_conversation(talkative: Worker) -> None:
    """An error in the middle of a conversation is printed and does not end it."""
    with in_terminal(talkative) as screen:
        screen.shows("> ")
        screen.press("one\n")
        screen.shows("Hello")
        screen.shows("> ", 2)
        talkative.backend.answer = lambda _: UpstreamUnavailable("down")
        screen.press("two\n")
        screen.shows("parley: ")
        talkative.backend.answer = lambda _: chunks("again")
        screen.shows("> ", 3)
        screen.press("three\n")
        screen.shows("again")
        until(lambda: "three" in sent(talkative)[-1], "the third turn")


def test_a_busy_session_is_awaited(talkative: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """A question is sent again until the lease of a cancelled turn has run out."""
    session = talk(talkative, "one").stderr.split()[-1]
    gate = asyncio.Event()
    talkative.backend.answer = lambda _: [chunks("partly")[0], gate]
    running = chat.StreamChatCompletion(chat_request("two", session_id=session), metadata=ada)
    assert "partly" == next(chunk for chunk in running if chunk.choices[0].delta.content).choices[0].delta.content
    talkative.backend.answer = lambda _: chunks("again")
    threading.Timer(BUSY_SECONDS, running.cancel).start()
    result = talk(talkative, "three", "--session", session)
    assert (0, "again\n") == (result.returncode, result.stdout)


def silent(worker: Worker) -> None:
    """Scripts the model: "partly" and then nothing for "one", nothing for "silence", else "again"."""
    gate = asyncio.Event()
    answers = {"one": [chunks("partly")[0], gate], "silence": [gate]}
    worker.backend.answer = lambda call: answers.get(call.request.messages[-1].content.string_value, chunks("again"))


def test_an_interrupt_leaves_no_lock_of_grpc_acquired(worker: Worker) -> None:
    """After Ctrl-C at any point of the command or of gRPC the next question is answered."""
    silent(worker)
    result = subprocess.run(
        [*INTERRUPTIBLE, sys.executable, "-m", "tests.rpc.interrupting", worker.address],
        env=environment(PARLEY_API_KEY=worker.keys["ada"]),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert 0 == result.returncode, result.stderr
    after, again, piped, before = map(int, result.stdout.split())
    # Points in two cycles of a wait. Since Python 3.12 the frame that is the first to be traced of a function has none.
    assert min(after, again, piped) > (20 if sys.version_info >= (3, 12) else 30)
    assert before > after  # which has the start of the call, too


def test_an_interrupt_ends_a_pipe(worker: Worker) -> None:
    """Ctrl-C ends the command with the usual status and without a traceback."""
    silent(worker)
    process = subprocess.Popen(
        [*INTERRUPTIBLE, COMMAND, "chat", "--address", worker.address, "--model", "stateless"],
        env=environment(PARLEY_API_KEY=worker.keys["ada"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"one\ntwo\n")
    process.stdin.flush()
    assert b"partly" == process.stdout.read(6)
    process.send_signal(signal.SIGINT)
    assert (b"", b"") == process.communicate(timeout=PATIENCE)
    assert 130 == process.returncode


def test_ctrl_c_ends_the_wait_for_a_busy_session(
    talkative: Worker, chat: ChatCompletionsStub, ada: Metadata, log_file: Path
) -> None:
    """Ctrl-C ends the wait for a session whose turn still runs."""
    session = talk(talkative, "zero").stderr.split()[-1]
    silent(talkative)
    running = chat.StreamChatCompletion(chat_request("one", session_id=session), metadata=ada)
    assert "partly" == next(chunk for chunk in running if chunk.choices[0].delta.content).choices[0].delta.content
    with in_terminal(talkative, "--session", session) as screen:
        screen.shows("> ")
        before = log_file.stat().st_size
        screen.press("two\n")
        # Ctrl-C would discard a line that the command has not read. After a rejection it is mostly asleep.
        until(lambda: b"SESSION_BUSY" in log_file.read_bytes()[before:], "the rejection of a call")
        screen.press("\x03")
        screen.shows("(stopped)")
        running.cancel()
        screen.press("three\n")
        screen.shows("again")
