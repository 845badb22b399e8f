"""Runs a stack from start to end, and handles signals."""

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from parley.supervisor import reload_record, systemd, ticks, watched_files
from parley.supervisor.errors import CommandError
from parley.supervisor.messages import Progress
from parley.supervisor.plan import ProcessSettings
from parley.supervisor.process import print_notice
from parley.supervisor.stack import Stack

_REPAIR_SECONDS = 1.0


async def run(
    stack: Stack,
    serving: Callable[[], AbstractAsyncContextManager[None]],
    read: Callable[[], Coroutine[Any, Any, ProcessSettings]] | None,
    *,
    show: Callable[[Progress], None],
    ready: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Runs the stack until SIGINT or SIGTERM. A second signal kills its processes. systemd learns each state.

    SIGINT comes from a terminal, which has no load balancer to wait for: it skips the delay of the shutdown.

    SIGHUP reloads the configuration. Without `read`, or if the terminal was closed, SIGHUP stops the stack.

    Args:
        stack: The processes.
        serving: A context manager that is entered while the stack serves.
        read: Returns the settings for a reload; None for no reloads.
        show: Called with each step of the start.
        ready: Awaited before `serving` is entered.

    Raises:
        CommandError: The stack does not start.
    """
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
        if await _until(stop, stack.start(show)) and await _until(stop, ready()):
            async with serving():
                await _until(stop, _operate(stack, hangup, read))
    finally:
        systemd.notify("STOPPING=1")
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


async def _operate(
    stack: Stack, hangup: asyncio.Event, read: Callable[[], Coroutine[Any, Any, ProcessSettings]] | None
) -> None:
    """Reloads the configuration when requested and when its files change, and repairs the stack."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(systemd.feed_watchdog())
        tasks.create_task(_reloads(stack, hangup, read))
        tasks.create_task(_repairs(stack))
        if read is not None:
            tasks.create_task(watched_files.watch(lambda: stack.settings.files, hangup.set))


async def _repairs(stack: Stack) -> None:
    """Repairs the stack periodically. Prints each failure once."""
    last = ""
    while True:
        await ticks.pause(_REPAIR_SECONDS)
        try:
            await stack.repair()
            last = ""
        except (CommandError, OSError) as error:
            if str(error) != last:
                print_notice(f"the run folder cannot be made again: {error}")
            last = str(error)


async def _reloads(
    stack: Stack, hangup: asyncio.Event, read: Callable[[], Coroutine[Any, Any, ProcessSettings]] | None
) -> None:
    """Reloads the configuration at every SIGHUP, one reload at a time."""
    while True:
        await hangup.wait()
        hangup.clear()
        systemd.notify_reloading()
        try:
            if read is not None:
                await _reload(stack, read)
        finally:
            systemd.notify("READY=1")


async def _reload(stack: Stack, read: Callable[[], Coroutine[Any, Any, ProcessSettings]]) -> None:
    """Reloads the configuration, and prints and records the outcome."""
    end = reload_record.begin(stack.state_dir)
    try:
        before, new = stack.settings, await read()
        await stack.reload(new)
    except CommandError as error:
        text = " / ".join(str(error).splitlines())
        print_notice(f"the old configuration stays in use: {text}")
        stack.configuration.record_failure()
        end(text, ())
        return
    stack.configuration.record_success(new.file)
    changes = reload_record.changes(before.configuration, new.configuration)
    print_notice(f"the new configuration is in use ({', '.join(changes) or 'nothing has changed'})")
    end(None, changes)


def _terminal_is_gone() -> bool:
    """Reports whether the terminal of stderr has been closed."""
    try:
        os.tcgetpgrp(sys.stderr.fileno())
    except OSError as error:
        return error.errno == errno.EIO
    return False
