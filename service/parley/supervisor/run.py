"""Runs a stack from start to end, and handles signals."""

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

from parley.config import Config, ConfigError
from parley.supervisor.errors import CommandError
from parley.supervisor.limits import raise_descriptor_limit, restrict_new_files
from parley.supervisor.process import print_notice
from parley.supervisor.stack import Stack

_REPAIR_SECONDS = 1.0


async def run(
    stack: Stack,
    serving: Callable[[], AbstractAsyncContextManager[None]],
    read: Callable[[], Config] | None = None,
    *,
    quiet: bool = False,
    ready: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Runs the stack until SIGINT or SIGTERM. A second signal kills its processes.

    SIGINT comes from a terminal, which has no load balancer to wait for: it skips the delay of the shutdown.

    SIGHUP reloads the configuration. Without `read`, or if the terminal was closed, SIGHUP stops the stack.

    Args:
        stack: The processes.
        serving: A context manager that is entered while the stack serves.
        read: Returns the configuration for a reload.
        quiet: Whether to hide the progress of the start.
        ready: Awaited before `serving` is entered.

    Raises:
        CommandError: The stack does not start.
    """
    raise_descriptor_limit()
    restrict_new_files()
    stop, hangup = asyncio.Event(), asyncio.Event()
    terminal = sys.stderr.isatty()

    def end() -> None:
        if stop.is_set():
            stack.kill()
        else:
            print_notice("stopping when running calls have finished; repeat the signal to stop at once")
        stop.set()

    def hang_up() -> None:
        if read is None or (terminal and _terminal_is_gone()):
            stack.skip_delay()
            stop.set()
        hangup.set()

    def interrupt() -> None:
        stack.skip_delay()
        end()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    try:
        if await _until(stop, _start(stack, quiet)) and (ready is None or await _until(stop, ready())):
            async with serving():
                await _until(stop, _operate(stack, hangup, read))
    finally:
        await stack.stop()


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Runs `work`. Returns true when it is done; cancels it and returns false when `stop` is set."""
    task = asyncio.ensure_future(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
        return False
    task.result()
    return True


async def _start(stack: Stack, quiet: bool) -> None:
    """Starts the stack and shows the progress."""
    with _silence() if quiet else _progress() as show:
        await stack.start(show)


async def _operate(stack: Stack, hangup: asyncio.Event, read: Callable[[], Config] | None) -> None:
    """Reloads the configuration when requested, and repairs the stack."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_reloads(stack, hangup, read))
        tasks.create_task(_repairs(stack))


async def _repairs(stack: Stack) -> None:
    """Repairs the stack periodically. Prints each failure once."""
    last = ""
    while True:
        await asyncio.sleep(_REPAIR_SECONDS)
        try:
            await stack.repair()
            last = ""
        except (CommandError, OSError) as error:
            if str(error) != last:
                print_notice(f"the run folder cannot be made again: {error}")
            last = str(error)


async def _reloads(stack: Stack, hangup: asyncio.Event, read: Callable[[], Config] | None) -> None:
    """Reloads the configuration at every SIGHUP, one reload at a time."""
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            if read is not None:
                await stack.reload(read())
                print_notice("the new configuration is in use")
        except (CommandError, ConfigError) as error:
            print_notice(f"the old configuration stays in use: {' / '.join(str(error).splitlines())}")


@contextmanager
def _silence() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows nothing."""
    yield lambda _: None


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows a step: a spinner on a terminal, otherwise a line."""
    if not sys.stderr.isatty():
        yield lambda text: print_notice(f"{text} …")
        return
    from rich.console import Console

    with Console(stderr=True).status("Starting") as status:
        yield lambda text: status.update(f"{text} …")


def _terminal_is_gone() -> bool:
    """Reports whether the terminal of stderr has been closed."""
    try:
        os.tcgetpgrp(sys.stderr.fileno())
    except OSError as error:
        return error.errno == errno.EIO
    return False
