"""The supervisor's end of its preparation, see `parley.supervisor.messages`."""

import asyncio
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from parley.supervisor import child_signals, messages
from parley.supervisor.errors import CommandError
from parley.supervisor.messages import Failure, Reload, Start, StoreOpened
from parley.supervisor.process import die_with_parent

_MODULE = "parley.cli.prepare"
_HEAD = 4
_END_SECONDS = 2.0


class PreparationEnded(Exception):
    """The preparation has ended, after it printed the cause; `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the preparation ended with {code}")
        self.code = code


class Preparation:
    """A running preparation."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self._identity: str | None = None
        self._opening: asyncio.Task[None] | None = None

    def send(self, message: object) -> None:
        """Sends a message; drops it if the preparation has ended."""
        self._writer.write(messages.packed(message))

    async def receive(self) -> Any:
        """Returns the next message. Raises CommandError for a failure, and PreparationEnded."""
        try:
            head = await self._reader.readexactly(_HEAD)
            message = messages.unpacked(await self._reader.readexactly(messages.length(head)))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise PreparationEnded(await self._process.wait()) from error
        if isinstance(message, Failure):
            raise CommandError(message.text)
        return message

    async def store_identity(self) -> str | None:
        """Waits until the store was opened; returns its identity. Raises CommandError if it is unusable."""
        self._opening = self._opening or asyncio.create_task(self.wait_store())
        await asyncio.shield(self._opening)
        return self._identity

    async def wait_store(self) -> None:
        """Waits for the next result of opening the store. Raises CommandError."""
        message = await self.receive()
        assert isinstance(message, StoreOpened)  # noqa: S101 - for the type checker
        self._identity = message.identity

    async def wait_end(self) -> None:
        """Waits until the preparation has ended."""
        await self._process.wait()

    async def close(self) -> None:
        """Ends the preparation."""
        if self._opening is not None:
            self._opening.cancel()
        self._writer.close()
        child_signals.send(self._process, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _END_SECONDS)
            return
        child_signals.send(self._process, signal.SIGKILL)
        await self._process.wait()


@asynccontextmanager
async def running(arguments: Sequence[str], first: Start | Reload) -> AsyncIterator[Preparation]:
    """Starts a preparation with the arguments of the command line, and ends it afterwards."""
    own, other = socket.socketpair()
    with other:
        other.set_inheritable(True)
        command = [sys.executable, "-m", _MODULE, str(other.fileno()), *arguments]
        process = await asyncio.create_subprocess_exec(
            *command,
            close_fds=False,  # a shell may have opened the configuration: --config <(…)
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
    reader, writer = await asyncio.open_connection(sock=own)
    preparation = Preparation(process, reader, writer)
    preparation.send(first)
    try:
        yield preparation
    finally:
        await preparation.close()
