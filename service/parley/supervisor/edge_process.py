"""The process of `parley edge run`: Envoy, its log, and its graceful end.

Envoy ends all calls at SIGTERM, and writes a line for each call that it refuses. This process drains Envoy before, and
limits the rate of the lines. It imports little, because it stays.

Usage: python -m parley.supervisor.edge_process CONFIG SHUTDOWN_DELAY SHUTDOWN_GRACE THREADS
"""

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from parley.supervisor.plain_asyncio import asyncio  # isort: skip - before other imports of asyncio
from parley.supervisor import child_signals, environment, envoy, envoy_admin, static_edge
from parley.supervisor.errors import CommandError
from parley.supervisor.limits import raise_descriptor_limit
from parley.supervisor.process import print_event, print_notice, read_lines, spawn
from parley.supervisor.refused_calls import RefusedCalls, report_closed

_END_SECONDS = 5.0


async def run(config: Path, shutdown_delay: float, shutdown_grace: float, threads: int) -> int:
    """Runs Envoy until it ends, or until a signal; a second signal ends it at once.

    Args:
        config: The configuration that `static_edge.write` has written.
        shutdown_delay: Seconds for which connections are still accepted after the signal.
        shutdown_grace: Seconds that running calls may then take to finish.
        threads: The number of Envoy's threads; 0 for the default.

    Returns:
        The exit status.
    """
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the options are those of the start
    process = await spawn(envoy.command(config, shutdown_delay, threads), environment.for_envoy(), cwd=config.parent)
    refused = RefusedCalls(print_event, "info")
    reading = asyncio.create_task(read_lines(process, lambda line: _forward(line, refused)))
    reporting = asyncio.create_task(report_closed(refused, envoy.admin_socket(config.parent)))
    ended = asyncio.create_task(process.wait())
    signalled = asyncio.create_task(signals.get())
    await asyncio.wait({ended, signalled}, return_when=asyncio.FIRST_COMPLETED)
    if not ended.done():
        draining = asyncio.create_task(_drain(config.parent, shutdown_delay, shutdown_grace))
        again = asyncio.create_task(signals.get())
        await asyncio.wait({ended, draining, again}, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        await _end(process)
    reporting.cancel()
    code = await ended
    await reading
    if signalled.done():
        return 0
    print_notice(f"Envoy ended ({code})")
    return code if code >= 0 else 128 - code


async def _drain(folder: Path, delay: float, grace: float) -> None:
    """Drains Envoy. One that `parley edge drain` has drained before sends away no more callers."""
    admin = envoy.admin_socket(folder)
    with suppress(CommandError):  # an Envoy that does not answer is ended
        await static_edge.drain(folder, 0 if await envoy_admin.is_draining(admin) else delay, grace)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends Envoy, by force if it takes too long."""
    child_signals.send(process, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _END_SECONDS)
    except TimeoutError:
        child_signals.send(process, signal.SIGKILL)


def _forward(line: str, refused: RefusedCalls) -> None:
    if not refused.write(line):
        print_notice(f"envoy: {line}")


def main(arguments: Sequence[str]) -> int:
    """Runs Envoy with the arguments of `static_edge.command`; returns the exit status."""
    raise_descriptor_limit()
    config, delay, grace, threads = arguments
    return asyncio.run(run(Path(config), float(delay), float(grace), int(threads)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
