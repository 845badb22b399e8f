"""`parley chat` in a real pseudo-terminal of 80 columns, whose screen is read as a user sees it."""

import asyncio
import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte
import pytest

from parley.core.errors import UpstreamUnavailable
from parley.stores import indexing
from parley.stores.sqlite import search
from tests.processes import COMMAND, PATIENCE, environment
from tests.rpc.conftest import Worker
from tests.rpc.scripted import chunks

COLUMNS, LINES = 80, 40
COMMANDS = {
    f"/{name}"
    for name in ["model", "session", "title", "fork", "retry", "system", "usage", "receipt", "save", "help", "exit"]
}
ENTER, ALT_ENTER, CTRL_C, CTRL_D, UP, TAB = "\r", "\x1b\r", "\x03", "\x04", "\x1b[A", "\t"


class Answering(pyte.HistoryScreen):
    """A screen that answers the queries of programs, for example for the place of the cursor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        super().__init__(COLUMNS, LINES, history=1000)

    def write_process_input(self, data: str) -> None:
        """Writes an answer."""
        os.write(self._descriptor, data.encode())


class Screen:
    """A terminal that runs `parley chat`."""

    def __init__(self, descriptor: int, process: "subprocess.Popen[bytes]") -> None:
        self._descriptor, self.process = descriptor, process
        self._screen = Answering(descriptor)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def lines(self) -> list[str]:
        """The lines that are not empty."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)

    def shows(self, text: str, times: int = 1) -> None:
        """Waits for a text."""
        end = time.monotonic() + PATIENCE
        while self.text.count(text) < times:
            assert time.monotonic() < end, f"waited in vain for {text!r}:\n{self.text}"
            self._read()

    def is_at(self, line: str) -> None:
        """Waits until the last line is this one."""
        end = time.monotonic() + PATIENCE
        while self.lines[-1:] != [line]:
            assert time.monotonic() < end, f"waited in vain for {line!r}:\n{self.text}"
            self._read()

    def press(self, keys: str) -> None:
        """Sends keys."""
        os.write(self._descriptor, keys.encode())

    def paste(self, text: str) -> None:
        """Sends text as terminals send what is pasted."""
        self.press(f"\x1b[200~{text}\x1b[201~")

    def enter(self, text: str, prompt: str = "kept>") -> None:
        """Enters a line, and waits for the next prompt."""
        before = self.text.count(f"> {text}")
        self.press(text + ENTER)
        self.shows(f"> {text}", before + 1)
        self.is_at(prompt)

    def _read(self) -> None:
        if select.select([self._descriptor], [], [], 0.1)[0]:
            try:
                self._stream.feed(os.read(self._descriptor, 65536))
            except OSError:  # the other end is closed
                pytest.fail(f"the command has ended:\n{self.text}")


@contextmanager
def terminal(worker: Worker, folder: Path, *options: str) -> Iterator[Screen]:
    """Runs `parley chat` in a terminal, at the latest until the block ends; its files are in the folder."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    variables = {"TERM": "xterm-256color", "XDG_STATE_HOME": str(folder / "state"), "PARLEY_ADDRESS": worker.address}
    process = subprocess.Popen(
        ["env", "--default-signal=INT", COMMAND, "chat", *options],
        env=environment(PARLEY_API_KEY=worker.keys["ada"], **variables),
        cwd=folder,
        preexec_fn=lambda: os.login_tty(theirs),  # noqa: PLW1509 - it calls into the kernel and no further
    )
    os.close(theirs)
    try:
        yield Screen(ours, process)
    finally:
        process.kill()
        process.wait(PATIENCE)
        os.close(ours)


def answer(call: Any) -> list[Any]:
    """Answers with the question, in bold."""
    text = call.request.messages[-1].content.string_value
    return chunks(f"You: **{text.replace(chr(10), '/')}**", " and more words" * 6, ".")


@pytest.fixture
def echo(worker: Worker) -> Worker:
    """The server; its model repeats the question."""
    worker.backend.answer = answer
    return worker


def sent(worker: Worker, call: int = -1) -> list[Any]:
    """Returns the texts that the model received."""
    return [message.content.string_value for message in worker.backend.calls[call].request.messages]


def test_a_conversation(echo: Worker, tmp_path: Path) -> None:
    """The model is named, Markdown is drawn and wrapped at words, lines of a paste are one turn, Ctrl-D leaves."""
    with terminal(echo, tmp_path) as screen:
        screen.shows("kept, a new session")
        screen.is_at("kept>")
        screen.enter("one")
        words = " and more words" * 4
        assert ["kept", f"You: one{words} and more", "words and more words."] == screen.lines[-4:-1]
        screen.paste("first\nsecond")
        screen.shows("  second")
        screen.press(ENTER)
        screen.shows("You: first/second")
        screen.is_at("kept>")
        screen.press(f"third{ALT_ENTER}fourth\\{ENTER}fifth{ENTER}")
        screen.shows("You: third/fourth/fifth")
        screen.is_at("kept>")
        screen.press(CTRL_D)
        screen.shows("To go on: parley chat --model kept --session 0")
        assert 0 == screen.process.wait(PATIENCE)
    assert ["one", "first\nsecond", "third\nfourth\nfifth"] == sent(echo)[::2]
    file = tmp_path / "state" / "parley" / "chat-history"
    assert ("+fifth" in file.read_text(), 0o600) == (True, file.stat().st_mode & 0o777)


def test_ctrl_c_stops_the_answer_and_keeps_the_question(echo: Worker, tmp_path: Path) -> None:
    """After Ctrl-C, and after an error, the question can be sent again, and is in the history."""
    with terminal(echo, tmp_path, "--model", "kept") as screen:
        screen.is_at("kept>")
        screen.enter("one")
        gate = asyncio.Event()
        echo.backend.answer = lambda _: [chunks("half of it")[0], gate]
        screen.press(f"two{ENTER}")
        screen.shows("half of it")
        screen.press(CTRL_C)
        screen.shows("(stopped)")
        screen.is_at("kept>")
        echo.run(asyncio.wait_for(echo.backend.closed.wait(), PATIENCE))
        echo.backend.answer = answer
        screen.enter("/retry")
        assert "You: two" in screen.text
        echo.backend.answer = lambda _: UpstreamUnavailable("down")
        screen.enter("three")
        screen.shows("parley: ")
        echo.backend.answer = answer
        screen.enter("/retry")
        assert "You: three" in screen.text
        screen.press(UP * 4)
        screen.is_at("kept> two")
        screen.press(CTRL_C)
        screen.is_at("kept>")
        screen.press(f"/exit{ENTER}")
        assert 0 == screen.process.wait(PATIENCE)
    assert ["one", "two", "three"] == sent(echo)[::2]


def test_commands(echo: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command does what /help says."""
    (tmp_path / "red.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with terminal(echo, tmp_path, "--model", "kept", "--system", "Be brief") as screen:
        screen.is_at("kept>")
        screen.enter("/help")
        names = {line.split()[0] for line in screen.lines if line.startswith("/")}
        assert COMMANDS == names
        screen.enter("one")
        screen.enter("/receipt")
        screen.shows("scripted/upstream: ")
        screen.enter("/retry")
        assert ["Be brief", "one"] == sent(echo)
        screen.enter("/fork")
        screen.shows(", a copy.")
        screen.enter("two")
        screen.enter("/retry")
        assert ["Be brief", "one", "two"] == [sent(echo)[0], *sent(echo)[1::2]]
        screen.enter("/usage")
        screen.shows("This chat: 4 answers, 12 prompt and 8 completion tokens.")
        screen.press("/mod")
        screen.shows("       /model  list the models, or go on with another one")
        screen.press(f"el stateless{ENTER}")
        screen.is_at("stateless>")
        screen.enter("three", "stateless>")
        assert ["Be brief", "one", "two", "three"] == [sent(echo)[0], *sent(echo)[1::2]]
        screen.enter("/system Be long", "stateless>")
        screen.enter("@red.png four", "stateless>")
        parts = echo.backend.calls[-1].request.messages
        assert "Be long" == parts[0].content.string_value
        assert "data:image/png;base64,iVBORw0KGgo" in str(parts[-1])
        screen.enter("/save talk.md", "stateless>")
        screen.enter("/nonsense", "stateless>")
        screen.shows("parley: there is no command /nonsense; /help lists them")
        monkeypatch.setattr(indexing, "INDEX_SECONDS", 0.0)
        monkeypatch.setattr(search, "BATCH_TURNS", 1)
        screen.enter("/session find *nothing", "stateless>")
        screen.shows("There are no such sessions.")
        screen.shows("Not all turns are indexed yet")
        screen.enter("/model kept", "kept>")
        screen.enter("five")
        screen.enter("/title")
        assert "five" in screen.lines
        screen.enter("/title Prime numbers")
        screen.enter("/session find prime num")
        screen.shows("  Prime numbers")
        screen.press(f"/exit{ENTER}")
        assert 0 == screen.process.wait(PATIENCE)
    saved = (tmp_path / "talk.md").read_text()
    assert "## System\n\nBe long\n\n## You\n\none\n\n## Model\n\nYou: **one**" in saved


def test_a_key_that_is_rejected_ends_the_command(echo: Worker, tmp_path: Path) -> None:
    """The error comes before the first prompt, and says what to do."""
    (tmp_path / "key").write_text("sk-wrong")
    with terminal(echo, tmp_path, "--key-file", "key") as screen:
        screen.shows("keys create --name NAME`")
        assert 1 == screen.process.wait(PATIENCE)
        assert screen.lines[0].startswith("parley: Invalid API key; check")
