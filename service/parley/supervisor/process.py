"""Supervised child processes: started, monitored, restarted, stopped."""

import asyncio
import ctypes
import json
import os
import signal
import sys
from abc import ABC, abstractmethod
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from parley.logs.characters import escape_controls, mark_controls
from parley.logs.output import Output
from parley.logs.terminal import render
from parley.supervisor import child_signals
from parley.supervisor.errors import CommandError
from parley.supervisor.folders import private_dir
from parley.supervisor.liveness import HangLimits, wait_hang

_START_SECONDS = 60.0  # the longest time from the start of a process until it serves
_STEADY_SECONDS = 30.0  # a child that served for longer restarts without a delay
_MAX_TRIES = 3  # starts of a child that has never served
_POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def print_notice(text: str) -> None:
    """Writes one line to stderr for the operator. Drops the line if it cannot be written."""
    _stderr().write(f"parley: {mark_controls(text)}\n".encode(errors="replace"))


def print_event(event: dict[str, Any]) -> None:
    """Writes a log line as a worker would. An event without a timestamp gets that of now."""
    event.setdefault("timestamp", datetime.now(UTC).isoformat().replace("+00:00", "Z"))
    is_terminal = sys.stderr.isatty()
    line = render(event) if is_terminal else escape_controls(json.dumps(event, separators=(",", ":")).encode())
    _stderr().write(line + b"\n")


def log_lines_lost() -> int:
    """Returns the number of lines of this process that could not be written."""
    return _stderr().lines_lost


@cache
def _stderr() -> Output:
    return Output(2)


def restore_dir(folder: Path) -> None:
    """Creates a private folder again if it was removed. Raises CommandError if another one is in its place."""
    if not folder.is_dir():
        print_notice(f"the folder {folder} was removed; it is made again")
    private_dir(folder)


def backoff(failures: int) -> float:
    """Returns the seconds before the next start after consecutive failures: 0, 0.5, 1, 2, … 10."""
    return 0.0 if failures <= 1 else min(0.5 * 2 ** (failures - 2), 10.0)


def describe_end(code: int) -> str:
    """Describes a return code: `exit code 1`, `killed by SIGKILL`."""
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


class Child(ABC):
    """A supervised process. It runs in a session of its own, so that a terminal's Ctrl-C does not reach it.

    Args:
        name: The name in notices.
        hang_limits: When the process counts as hanging, and is killed; None for never.
        folder: The folder of the process's files and sockets, which must be private at each start; None for none.
    """

    def __init__(self, name: str, hang_limits: HangLimits | None = None, folder: Path | None = None) -> None:
        self.name, self._folder = name, folder
        self._hang_limits = hang_limits
        self._answered = 0.0
        self.process: Process | None = None
        self.up = asyncio.Event()
        self.last_lines: deque[str] = deque(maxlen=30)
        self._stopping = asyncio.Event()
        self._served = False
        self._keeper: asyncio.Task[None] | None = None
        self._reader_task: asyncio.Task[None] | None = None

    @abstractmethod
    async def spawn(self) -> Process:
        """Starts the process."""

    @abstractmethod
    async def serving(self, process: Process) -> None:
        """Waits until the process serves. Raises CommandError with the cause if the process reports one."""

    async def probe(self) -> None:
        """Calls `record_answer` whenever the process answers a liveness check; runs while the process serves."""
        return

    def record_answer(self) -> None:
        """Records that the process is alive."""
        self._answered = asyncio.get_running_loop().time()

    def on_serving(self) -> None:
        """Called when the process serves."""
        return

    def on_stopped(self) -> None:
        """Called when a process that served has ended, or is about to be stopped."""
        return

    @property
    def stopping(self) -> bool:
        """Reports whether the child is being stopped and is not restarted."""
        return self._stopping.is_set()

    async def start(self) -> None:
        """Starts the child and waits until it serves. Raises CommandError after three failed starts."""
        self._keeper = asyncio.create_task(self._keep(), name=self.name)
        up = asyncio.create_task(self.up.wait())
        try:
            await asyncio.wait({self._keeper, up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        if self._keeper.done():
            self._keeper.result()

    def stop_restarts(self) -> None:
        """Does not restart the process if it ends."""
        self._stopping.set()

    async def wait_end(self, seconds: float) -> None:
        """Waits for the end of the process, at most the given time."""
        if self._keeper is not None:
            await asyncio.wait({self._keeper}, timeout=seconds)

    async def stop(self, grace: float, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends a signal, kills the process after `grace` seconds, and waits for its end."""
        self._stopping.set()
        if self._keeper is None:
            return
        self.send(number)
        await self.wait_end(grace)
        self.kill()
        await asyncio.gather(self._keeper, return_exceptions=True)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if the process runs."""
        if self.process is not None:
            child_signals.send(self.process, number)

    def kill(self) -> None:
        """Kills the process and does not restart it."""
        self._stopping.set()
        self.send(signal.SIGKILL)

    async def replace(self, reason: str) -> None:
        """Kills the process, and waits until another one serves."""
        print_notice(f"{self.name} is replaced: {reason}")
        before = self.process
        self.send(signal.SIGKILL)
        while not self.stopping and (self.process is before or not self.up.is_set()):  # noqa: ASYNC110 - two conditions
            await asyncio.sleep(_POLL_SECONDS)

    async def _keep(self) -> None:
        """Restarts the process, with a backoff, until the child is stopped."""
        failures = 0
        while not self.stopping:
            began = asyncio.get_running_loop().time()
            end = await self._run_once()
            if self.stopping:
                return
            lived = asyncio.get_running_loop().time() - began
            failures = 1 if self._served and lived > _STEADY_SECONDS else failures + 1
            if not self._served and failures == _MAX_TRIES:
                raise CommandError(f"{self.name} does not start: {end}")
            print_notice(f"{self.name} ended ({end}); starting another")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff(failures))

    async def _run_once(self) -> str:
        """Runs one process to its end. Returns the cause of the end."""
        self.last_lines.clear()
        try:
            if self._folder is not None:
                restore_dir(self._folder)
        except CommandError as error:  # another program has put its own folder in the place of a removed one
            return f"it cannot be started: {error}"
        try:
            self.process = process = await self.spawn()
        except OSError as error:
            return f"it cannot be started: {error.strerror or error}"
        if self.stopping:
            self.send(signal.SIGKILL)
        ready = asyncio.create_task(self.serving(process))
        ended = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({ready, ended}, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            failure = self._failure(ready, ended)
            if failure is None:
                await self._serve(process, ended)
        finally:
            ready.cancel()
            self.send(signal.SIGKILL)
            code = await process.wait()
            if self._reader_task is not None:
                await self._reader_task
        return failure or self._cause(code)

    def _failure(self, ready: asyncio.Task[None], ended: asyncio.Task[int]) -> str | None:
        """Returns why the process does not serve: None if it serves, empty if only its return code is known."""
        if ready.done():
            error = ready.exception()
            return None if error is None else str(error) or repr(error)
        if ended.done():
            return ""
        return f"not ready within {_START_SECONDS:.0f} s"

    async def _serve(self, process: Process, ended: asyncio.Task[int]) -> None:
        """Marks the child as serving until the process ends or hangs."""
        self._served = True
        self.up.set()
        self.on_serving()
        watch = asyncio.create_task(self._watch(process))
        try:
            await asyncio.wait({ended, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            self.up.clear()
            self.on_stopped()

    async def _watch(self, process: Process) -> None:
        """Returns when the process hangs, which it logs."""
        if self._hang_limits is None:
            await asyncio.Event().wait()
            return
        self.record_answer()
        probing = asyncio.create_task(self.probe())
        try:
            hang = await wait_hang(process.pid, lambda: self._answered, self._hang_limits)
        finally:
            probing.cancel()
        print_notice(f"{self.name} hangs ({hang}); it is killed")

    def _cause(self, code: int) -> str:
        """Describes the return code, with the last error that the process printed, else its last line."""
        lines = [line for line in self.last_lines if "error" in line.lower()] or list(self.last_lines)[-1:]
        if not lines or code == -signal.SIGKILL:  # output before SIGKILL does not explain it
            return describe_end(code)
        return f"{describe_end(code)}: {lines[-1]}"

    def listen(self, process: Process, forward: Callable[[str], None] = lambda _: None, *, keep: bool = True) -> None:
        """Passes each line that the process prints to `forward`, and keeps the last lines for the cause of its end."""

        def receive(text: str) -> None:
            if keep and not text.startswith("{"):  # an access log explains no end
                self.last_lines.append(text)
            forward(text)

        self._reader_task = asyncio.create_task(read_lines(process, receive))


async def read_lines(process: Process, forward: Callable[[str], None]) -> None:
    """Passes each line that a process prints to `forward`, except empty ones, until the end of its output."""
    assert process.stdout  # noqa: S101 - for the type checker
    while line := await _readline(process.stdout):
        if text := line.decode(errors="replace").rstrip():
            forward(text)


async def _readline(stream: asyncio.StreamReader) -> bytes:
    """Returns one line; a placeholder for a line beyond the reader's limit."""
    try:
        return await stream.readline()
    except ValueError:
        return b"(a line too long to show)\n"


async def spawn(
    argv: list[str], environment: dict[str, str] | None = None, *, cwd: Path | None = None, reports: bool = False
) -> Process:
    """Starts a process that ends with this one. Its stdout is a pipe.

    Args:
        argv: The command line.
        environment: Its variables; None for those of this process.
        cwd: The working directory; None for the current one.
        reports: Whether the process reports over its pipes: stdin is a pipe and stderr is inherited. Otherwise stdin is
            empty and stderr goes to stdout.
    """
    return await asyncio.create_subprocess_exec(
        *argv,
        env=environment,
        cwd=cwd,
        stdin=PIPE if reports else DEVNULL,
        stdout=PIPE,
        stderr=None if reports else asyncio.subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )


def die_with_parent() -> Callable[[], None] | None:
    """Returns a `preexec_fn` that has the kernel kill the child when its parent ends; None except on Linux."""
    if _LIBC is None:
        return None
    parent = os.getpid()
    prctl = _LIBC.prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before prctl
            os._exit(1)

    return prepare
