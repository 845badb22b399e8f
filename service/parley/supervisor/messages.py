"""What the supervisor and its preparation send each other, over a pair of sockets.

The preparation is a process that reads the options and the configuration, opens the store and creates the first key.
It ends when Parley serves, and takes the modules of all that with it.
"""

import pickle
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parley.supervisor.addresses import Address

_LENGTH = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Start:
    """To the preparation: everything is started."""


@dataclass(frozen=True, slots=True)
class Reload:
    """To the preparation: only the configuration is read again. `tls` is `ProcessSettings.tls` of the running one."""

    tls: str


@dataclass(frozen=True, slots=True)
class Claim:
    """To the supervisor: a run folder is needed; its path is the reply.

    Attributes:
        state: The state folder, which becomes locked and has the run folder. None for a run folder elsewhere.
    """

    state: Path | None


@dataclass(frozen=True, slots=True)
class StoreOpened:
    """To the supervisor: the store was opened. `identity` is None if its server is unreachable."""

    identity: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """To the preparation: the current step of the start, for a terminal.

    Attributes:
        text: The step.
        share: How much of it is done, from 0 to 1; None where that is unknown.
    """

    text: str
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """To the preparation: all processes serve, on these addresses; an address is None without its listener."""

    http: Address | None
    grpc: Address
    metrics: Address | None
    admin: Address | None


@dataclass(frozen=True, slots=True)
class Failure:
    """To the supervisor: the start ends, or the reload, with this text."""

    text: str


class Channel:
    """The end of the preparation. Its methods block, and raise EOFError after the end of the supervisor."""

    def __init__(self, descriptor: int) -> None:
        self._file = socket.socket(fileno=descriptor).makefile("rwb")
        self.first: Start | Reload = self.receive()

    def send(self, message: object) -> None:
        """Sends a message."""
        try:
            self._file.write(packed(message))
            self._file.flush()
        except OSError as error:
            raise EOFError from error

    def request(self, message: object) -> Any:
        """Sends a message; returns the reply."""
        self.send(message)
        return self.receive()

    def receive(self) -> Any:
        """Waits for the next message, and returns it."""
        head = self._file.read(_LENGTH.size)
        data = self._file.read(length(head)) if len(head) == _LENGTH.size else b""
        if not data:
            raise EOFError
        return unpacked(data)


def packed(message: object) -> bytes:
    """Returns the bytes of a message, with their length in front."""
    data = pickle.dumps(message)
    return _LENGTH.pack(len(data)) + data


def length(head: bytes) -> int:
    """Returns the length of the message that follows these four bytes."""
    size: int = _LENGTH.unpack(head)[0]
    return size


def unpacked(data: bytes) -> Any:
    """Returns the message of these bytes."""
    return pickle.loads(data)  # noqa: S301 - of the supervisor's own child, or of its parent
