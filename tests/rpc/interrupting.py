"""Runs `parley chat` in this process once for each point at which Python may handle a Ctrl-C, and interrupts it there.

`python -m tests.rpc.interrupting ADDRESS` needs PARLEY_API_KEY and a model that answers "one" with "partly" and then
nothing, never answers "silence", and answers everything else with "again". Prints the number of points. A run that
hangs ends the process with a dump of its threads.
"""

import dis
import faulthandler
import io
import signal
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

from grpc import _common

from parley.cli.chat.command import chat

SECONDS = 20
"""After so many seconds a run counts as hanging."""
CYCLES = 2
"""How often the thread waits before the last point. gRPC waits for a chunk in short cycles."""
WITHOUT_LOCKS = {
    "uuid",
    *(f"parley_client.{name}" for name in ("calls", "completion", "errors", "metadata", "requests", "resumption")),
}
"""The modules that hold no lock, not even through others; they are left out, as each point costs a conversation."""
CHECKED = ("CALL", "RESUME", "JUMP_BACKWARD")
"""The instructions after which CPython handles signals."""


@dataclass
class Interrupter:
    """Traces the main thread; interrupts it at the given point and, with `again`, at all that follow."""

    point: int
    again: bool
    points: int = 0
    cycles: int = 0

    def start(self) -> None:
        """Traces this thread, including the functions that it is in."""
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to the stack
        while frame is not None and frame.f_code is not _chat.__code__:
            frame.f_trace = self._trace(frame, "call", None)
            frame = frame.f_back
        sys.settrace(self._trace)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "call":
            if frame.f_globals.get("__name__") in WITHOUT_LOCKS:
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            self.cycles += frame.f_code is threading.Condition.wait.__code__
        elif event == "opcode" and frame.f_lasti in _checked(frame.f_code):
            self._step()
        return self._trace

    def _step(self) -> None:
        self.points += 1
        if self.cycles > CYCLES:
            self.point = min(self.point, self.points)
        if self.point == self.points or (self.again and self.point < self.points):
            signal.raise_signal(signal.SIGINT)


@cache
def _checked(code: CodeType) -> frozenset[int]:
    """The offsets of the instructions before which a signal may be handled."""
    instructions = list(dis.get_instructions(code))
    return frozenset(after.offset for before, after in pairwise(instructions) if before.opname.startswith(CHECKED))


class Keyboard(io.StringIO):
    """Standard input; starts the interrupter when "silence" is read."""

    def __init__(self, lines: str, interrupter: Interrupter, *, person: bool) -> None:
        super().__init__(lines)
        self._interrupter = interrupter
        self._person = person

    def isatty(self) -> bool:
        """Returns whether it is a terminal."""
        return self._person

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """Returns the next line."""
        line = super().readline(size)
        if line == "silence\n":
            self._interrupter.start()
        return line


class Screen(io.StringIO):
    """Standard output; starts the interrupter at "partly", and stops it when the answer is stopped."""

    def __init__(self, interrupter: Interrupter) -> None:
        super().__init__()
        self._interrupter = interrupter

    def write(self, text: str, /) -> int:
        """Appends a text."""
        if text == "partly":
            self._interrupter.start()
        if "(stopped)" in text:
            sys.settrace(None)
        return super().write(text)


def _chat(address: str, question: str, interrupter: Interrupter, *, person: bool) -> str:
    """Runs one chat; returns its output."""
    sys.stdin = Keyboard(f"{question}\nmore\n", interrupter, person=person)
    screen = Screen(interrupter)
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    with redirect_stdout(screen), redirect_stderr(screen):
        try:
            chat(model="stateless", address=address)
        except KeyboardInterrupt:
            screen.write("(interrupted)")
        finally:
            sys.settrace(None)
            faulthandler.cancel_dump_traceback_later()
    return screen.getvalue()


def _interrupt(address: str, question: str, point: int, *, person: bool, again: bool) -> int:
    """Interrupts the answer to a question at a point; returns the last point. Raises AssertionError for a wrong end."""
    interrupter = Interrupter(point, again)
    shown = _chat(address, question, interrupter, person=person)
    description = f"{question}, point {point}: {shown}"
    assert shown.endswith("again\n> \n" if person else "(interrupted)"), description
    assert not person or question == "silence" or shown.count("(stopped)") == 1, description
    return min(interrupter.point, interrupter.points)


def _interrupt_everywhere(address: str, question: str, *, person: bool, again: bool) -> int:
    """Interrupts the answer to a question at each point; returns the number of points."""
    last = _interrupt(address, question, sys.maxsize, person=person, again=again)
    for point in range(1, last):
        _interrupt(address, question, point, person=person, again=again)
    return last


def main(address: str) -> None:
    """Interrupts answers in a terminal and in a pipe, before and after the first piece, once and many times."""
    _common.MAXIMUM_WAIT_TIMEOUT = 0.001  # so that a cycle is short
    for question, person, again in (
        ("one", True, False),
        ("one", True, True),
        ("one", False, False),
        ("silence", True, False),
    ):
        points = _interrupt_everywhere(address, question, person=person, again=again)
        sys.stdout.write(f"{points}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
