"""A worker whose specification is not available leaves no process behind."""

import asyncio
from pathlib import Path

import pytest

from parley.supervisor import environment
from parley.supervisor.errors import CommandError
from parley.supervisor.worker import WorkerSpec
from parley.supervisor.workers import Worker


class _Specs:
    """The specification of a worker, which fails when `released` is set; counts its requests."""

    def __init__(self) -> None:
        self.requested, self.released = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> WorkerSpec:
        self.requested.set()
        await self.released.wait()
        raise CommandError("the store is unusable")


def _worker(specs: _Specs, folder: Path) -> Worker:
    variables = environment.for_any_worker()
    return Worker("worker 1", variables, specs, lambda: None, hang_limits=None, folder=folder / "run")


def _children() -> set[str]:
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


async def test_an_error_of_the_specification_ends_the_start(tmp_path: Path) -> None:
    """The start fails with the error, and the process that has begun is gone."""
    before, specs = _children(), _Specs()
    specs.released.set()
    with pytest.raises(CommandError, match="the store is unusable"):
        await _worker(specs, tmp_path).start()
    assert before == _children()


async def test_a_stop_does_not_wait_for_the_specification(tmp_path: Path) -> None:
    """A worker whose specification is awaited stops, and its process is gone."""
    before, specs = _children(), _Specs()
    worker = _worker(specs, tmp_path)
    starting = asyncio.create_task(worker.start())
    await specs.requested.wait()
    assert before < _children()
    await worker.stop(0)
    await starting
    assert before == _children()
