"""The process of `parley up` and `parley serve`: it imports little, because it only supervises."""

import asyncio
import gc
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from parley.supervisor import child_signals, environment, folders, metrics, preparation, systemd
from parley.supervisor.errors import CommandError
from parley.supervisor.limits import raise_descriptor_limit, restrict_new_files
from parley.supervisor.messages import Claim, Progress, Reload, Serving, Start
from parley.supervisor.plan import Plan, ProcessSettings
from parley.supervisor.preparation import Preparation, PreparationEnded
from parley.supervisor.process import print_notice, spawn
from parley.supervisor.run import run
from parley.supervisor.stack import Stack
from parley.supervisor.worker import command

_GARBAGE = (700, 10, 10)  # as Python has it by default


async def supervise(arguments: Sequence[str]) -> None:
    """Runs `parley up` or `parley serve` with these arguments until a signal ends it.

    Raises:
        CommandError: The start fails.
        PreparationEnded: The arguments are wrong, which the preparation has reported.
    """
    _collect_soon()
    raise_descriptor_limit()
    async with preparation.running(arguments, Start()) as prepared:
        restrict_new_files()  # the preparation does so later: it may create the parents of the state folder
        async with _spare_worker(behind_envoy=arguments[0] == "up") as spare:
            claim: Claim = await prepared.receive()
            with _claimed(claim) as run_dir:
                prepared.send(run_dir)
                await _run(await prepared.receive(), prepared, spare, partial(_reloaded, arguments))


def _collect_soon() -> None:
    """Has cyclic garbage collected soon: with the thresholds of the command line's start, it grows by 4 MB before.

    Each connection of asyncio leaves some of it: those of scrapes, and to Envoy.
    """
    gc.freeze()  # what is imported stays
    gc.set_threshold(*_GARBAGE)


async def _run(
    plan: Plan,
    prepared: Preparation,
    spare: Callable[[Mapping[str, str]], Process | None],
    reloaded: Callable[[str], Coroutine[Any, Any, ProcessSettings]],
) -> None:
    async with metrics.listening(plan.metrics) as listener:
        stack = Stack(plan, prepared.store_identity, spare, listener.address)
        listener.collect, listener.check = stack.scrape, stack.check
        await _run_stack(plan, stack, prepared, reloaded)


async def _run_stack(
    plan: Plan, stack: Stack, prepared: Preparation, reloaded: Callable[[str], Coroutine[Any, Any, ProcessSettings]]
) -> None:
    async def ready() -> None:
        prepared.send(Serving(stack.http, stack.grpc, stack.metrics, stack.admin))
        if plan.paths.http is not None:
            await prepared.wait_store()
            await prepared.wait_end()

    @asynccontextmanager
    async def serving() -> AsyncIterator[None]:
        # Without Envoy, the store may become available at any time.
        waiting = asyncio.create_task(prepared.wait_store()) if plan.paths.http is None else None
        try:
            with _ready(plan.ready_file, stack, plan.scheme):
                systemd.notify("READY=1", f"STATUS={_status(stack)}")
                yield
        finally:
            if waiting is not None:
                waiting.cancel()

    read = partial(reloaded, plan.settings.tls) if plan.reloads else None
    await run(stack, serving, read, show=_progress(prepared, plan), ready=ready)


async def _reloaded(arguments: Sequence[str], tls: str) -> ProcessSettings:
    """Reads the configuration again. Raises CommandError if it is invalid."""
    async with preparation.running(arguments, Reload(tls)) as prepared:
        try:
            settings: ProcessSettings = await prepared.receive()
        except PreparationEnded as error:
            raise CommandError(f"the configuration cannot be read ({error})") from error
        return settings


def _progress(prepared: Preparation, plan: Plan) -> Callable[[Progress], None]:
    """Returns a function that shows a step of the start: the preparation on a terminal, otherwise as a line."""
    if plan.quiet:
        return lambda _: None
    if sys.stderr.isatty():
        return prepared.send
    return lambda step: print_notice(f"{step.text} …") if step.share is None else None


@contextmanager
def _claimed(claim: Claim) -> Iterator[Path]:
    """Yields a run folder. Raises CommandError if another Parley uses the state folder."""
    if claim.state is None:
        with folders.passing_run_dir() as run_dir:
            yield run_dir
        return
    with folders.locked(claim.state), folders.run_dir(claim.state) as run_dir:
        yield run_dir


@asynccontextmanager
async def _spare_worker(*, behind_envoy: bool) -> AsyncIterator[Callable[[Mapping[str, str]], Process | None]]:
    """Starts the process of a worker, which imports its modules while the configuration is read.

    Yields:
        A function that returns the process once, if it has the right environment.
    """
    variables = environment.for_any_worker()
    if behind_envoy:
        variables = environment.behind_envoy(variables)
    spares = [await spawn(command(), variables, reports=True)]

    def take(wanted: Mapping[str, str]) -> Process | None:
        return spares.pop() if spares and wanted == variables else None

    try:
        yield take
    finally:
        for process in spares:
            child_signals.send(process, signal.SIGKILL)
            await process.wait()


def _status(stack: Stack) -> str:
    """Returns the line that `systemctl status` shows."""
    rest = f"REST {stack.http.to_call()}, " if stack.http else ""
    return f"serving {rest}gRPC {stack.grpc.to_call()}"


@contextmanager
def _ready(path: Path | None, stack: Stack, scheme: str) -> Iterator[None]:
    """Creates the ready file atomically, and removes it when Parley stops."""
    if path is None:
        yield
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    assert stack.http  # noqa: S101 - for the type checker
    content: dict[str, str | int] = {"http": f"{scheme}://{stack.http.to_call()}", "grpc": str(stack.grpc.to_call())}
    if stack.admin is not None:
        content["admin"] = str(stack.admin.to_call())
    if stack.metrics is not None:
        content["metrics"] = f"http://{stack.metrics.to_call()}"
    content["pid"] = os.getpid()
    draft.write_text(json.dumps(content) + "\n", encoding="utf-8")
    draft.chmod(0o644)  # it holds no secret, and other users' programs may wait for it
    draft.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
