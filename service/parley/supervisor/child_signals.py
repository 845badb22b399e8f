"""Signals to child processes."""

import os
from asyncio.subprocess import Process
from contextlib import suppress


def send(process: Process, number: int) -> None:
    """Sends a signal to a child, unless it has ended.

    `Process.send_signal` polls the child first. If it has just ended, the event loop misses its exit code, and logs
    "Unknown child process".
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
