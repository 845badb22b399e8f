"""The processes of a worker, supervised."""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from parley.supervisor import child_signals
from parley.supervisor.errors import CommandError
from parley.supervisor.liveness import HangLimits
from parley.supervisor.process import Child, describe_end, spawn
from parley.supervisor.worker import ALIVE, DRAIN_SECONDS, WorkerSpec, command


class Worker(Child):
    """One worker. Each of its processes listens on a new socket, so that Envoy never confuses two of them.

    `metrics` is the socket of its process for metrics; None without metrics.

    Args:
        name: The name in notices.
        environment: The environment of its processes.
        spec: Returns the specification of the next process.
        changed: Called after each change of `address`, which is None while the worker does not serve.
        hang_limits: When the process counts as hanging; None for never.
        folder: The folder of its sockets.
        spare: Returns a process that has been started already; None for none.
    """

    def __init__(  # noqa: PLR0913 - the parts of a worker
        self,
        name: str,
        environment: Mapping[str, str],
        spec: Callable[[], Awaitable[WorkerSpec]],
        changed: Callable[[], None],
        *,
        hang_limits: HangLimits | None,
        folder: Path,
        spare: Callable[[Mapping[str, str]], Process | None] = lambda _: None,
    ) -> None:
        super().__init__(name, hang_limits, folder)
        self._environment = dict(environment)
        self.address: str | None = None
        self.metrics: Path | None = None
        self._spec = spec
        self._changed, self._spare = changed, spare
        self._bound = ""
        self._reports: asyncio.Queue[str] = asyncio.Queue()

    async def spawn(self) -> Process:
        """Starts the process and writes its specification to its stdin."""
        process = self._spare(self._environment) or await spawn(command(), self._environment, reports=True)
        self._reports = asyncio.Queue()
        self.listen(process, self._on_report, keep=False)
        assert process.stdin  # noqa: S101 - for the type checker
        try:
            spec = await self._wait_spec()  # the process imports its modules meanwhile
        except CommandError:
            await self._discard(process)
            raise
        with suppress(ConnectionError):
            process.stdin.write(spec)
            await process.stdin.drain()
            process.stdin.close()
        return process

    async def _wait_spec(self) -> bytes:
        """Returns the specification; nothing if the worker is stopped before it is known."""
        spec, stopped = asyncio.ensure_future(self._spec()), asyncio.create_task(self._stopping.wait())
        await asyncio.wait({spec, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not spec.done():
            return b""
        metrics = spec.result().metrics
        self.metrics = Path(metrics) if metrics else None
        return spec.result().to_bytes()

    async def _discard(self, process: Process) -> None:
        """Kills a process that is not needed, and waits for its end."""
        assert process.stdin  # noqa: S101 - for the type checker
        process.stdin.close()
        child_signals.send(process, signal.SIGKILL)
        await process.wait()
        assert self._reader_task is not None  # noqa: S101 - for the type checker
        await self._reader_task

    async def serving(self, process: Process) -> None:
        """Waits until the worker reports that it serves. Raises CommandError if it reports an error."""
        answer, _, text = (await self._report()).partition(" ")
        if answer == "ready":
            self._bound = text
            return
        end = describe_end(await process.wait())
        raise CommandError(text or f"it ended before it served ({end}); see its log")

    def on_serving(self) -> None:
        """Publishes the address to Envoy."""
        self.address = self._bound
        self._changed()

    def on_stopped(self) -> None:
        """Withdraws the address from Envoy."""
        if self.address is not None:
            self.address = None
            self._changed()

    @property
    def has_lost_socket(self) -> bool:
        """Reports whether the socket on which the worker serves was removed, so that nothing can connect to it."""
        return self.address is not None and self.address.startswith("unix:") and not os.path.lexists(self.address[5:])

    async def drain(self, withdrawn: Callable[[], Awaitable[None]]) -> None:
        """Withdraws the worker from Envoy and stops it after its running calls have finished.

        Args:
            withdrawn: Waits until Envoy sends the worker no more calls. Streams of health that the worker then ends
                begin again at another one.
        """
        self.stop_restarts()
        self.on_stopped()
        await withdrawn()
        await self.stop(DRAIN_SECONDS + 10, signal.SIGUSR1)

    def leave(self) -> None:
        """Has the worker report NOT_SERVING to callers, and serve on."""
        self.stop_restarts()
        self.send(signal.SIGUSR2)

    async def wait_idle(self) -> None:
        """Waits until no call runs at the worker, after `leave`, or until the process ends."""
        self.send(signal.SIGUSR2)
        await self._report()

    def _on_report(self, line: str) -> None:
        """Handles a line of the worker; see `parley.supervisor.worker`."""
        if line == ALIVE:
            self.record_answer()
        else:
            self._reports.put_nowait(line)

    async def _report(self) -> str:
        """Returns the next line of the worker that is not a sign of life; an empty one after its end."""
        report = asyncio.create_task(self._reports.get())
        assert self._reader_task is not None  # noqa: S101 - for the type checker
        await asyncio.wait({report, self._reader_task}, return_when=asyncio.FIRST_COMPLETED)
        if report.done():
            return report.result()
        report.cancel()
        return ""
