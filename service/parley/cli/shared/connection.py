"""The connection of a preparation to its supervisor."""

from parley.cli.shared.startup import StartSummary
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


def wait_serving(shown: StartSummary | None) -> Serving:
    """Waits until all processes serve, and shows the steps that the supervisor reports. Raises EOFError."""
    channel = supervisor()
    while isinstance(message := channel.receive(), Progress):
        if shown is not None:
            shown.show(message)
    assert isinstance(message, Serving)  # noqa: S101 - for the type checker
    return message
