"""The connection of a preparation to its supervisor."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from parley.supervisor.errors import CommandError
from parley.supervisor.messages import Channel, Progress, Serving

_channels: list[Channel] = []


def open_channel(descriptor: int) -> None:
    """Opens the connection."""
    _channels.append(Channel(descriptor))


def supervisor() -> Channel:
    """Returns the connection. Raises CommandError in a process without one."""
    if not _channels:
        raise CommandError("`up` and `serve` run as the command `parley`, not within another program")
    return _channels[0]


def wait_serving(*, quiet: bool) -> Serving:
    """Waits until all processes serve, and shows the steps that the supervisor reports. Raises EOFError."""
    channel = supervisor()
    message = channel.receive()
    if isinstance(message, Progress) and not quiet:
        with _spinner() as show:
            while isinstance(message, Progress):
                show(message.text)
                message = channel.receive()
    assert isinstance(message, Serving)  # noqa: S101 - for the type checker
    return message


@contextmanager
def _spinner() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows a step on the terminal."""
    from rich.console import Console

    with Console(stderr=True).status("Starting") as status:
        yield lambda text: status.update(f"{text} …")
