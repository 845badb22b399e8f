"""Keep-alive comments in the silences of streams of events, so that proxies keep the connections open."""

import asyncio

from parley.core.background import PeriodicTask
from parley.rpc.stream_output import EventOutput

_CHECKS = 10  # in an interval: a comment leaves at most a tenth of it late


class KeepAlive:
    """Adds comments to silent streams. One task serves all streams of a worker.

    Args:
        seconds: The silence before a comment.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._outputs: set[EventOutput] = set()
        self._task = PeriodicTask("the keep-alive comments", self._check, seconds / _CHECKS)

    def start(self) -> None:
        """Starts the task."""
        self._task.start()

    async def stop(self) -> None:
        """Stops the task."""
        await self._task.stop()

    def add(self, output: EventOutput) -> None:
        """Watches a stream from now on."""
        self._outputs.add(output)

    def remove(self, output: EventOutput) -> None:
        """Ends the watch."""
        self._outputs.discard(output)

    async def _check(self) -> None:
        latest = asyncio.get_running_loop().time() - self._seconds
        for output in self._outputs:
            if output.last_added <= latest:
                output.add_keep_alive()
