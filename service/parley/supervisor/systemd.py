"""Reports the state of this process to systemd, by the protocol of sd_notify(3), as services of `Type=notify` do.

Without systemd, or where a service is not of this type, nothing is sent.
"""

import asyncio
import os
import socket
import time
from contextlib import suppress

_SEND_SECONDS = 1.0  # systemd reads at once; a full queue must not stop the supervisor


def notify(*assignments: str) -> None:
    """Sends assignments, such as `READY=1`, in one datagram. A failure is ignored: the service goes on without it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):  # systemd uses other kinds for virtual machines only
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(_SEND_SECONDS)
        channel.sendto("\n".join(assignments).encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def notify_reloading() -> None:
    """Reports that a reload has begun; `READY=1` ends it. `Type=notify-reload` needs the time."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


async def feed_watchdog() -> None:
    """Reports twice in each interval of `WatchdogSec=` that the event loop runs. Returns if there is no watchdog."""
    interval = _watchdog_seconds()
    while interval:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval / 2)


def _watchdog_seconds() -> float:
    """Returns the interval of the watchdog of this process; 0 for none."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    value = os.environ.get("WATCHDOG_USEC", "")
    return int(value) / 1e6 if value.isdecimal() else 0.0
