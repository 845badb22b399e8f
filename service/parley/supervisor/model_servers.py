"""The model servers of a configuration, started and stopped together."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from parley.supervisor import load_progress
from parley.supervisor.children import ModelServer
from parley.supervisor.errors import CommandError
from parley.supervisor.folders import private_dir
from parley.supervisor.liveness import HangLimits
from parley.supervisor.messages import Progress
from parley.supervisor.plan import ProcessSettings

_GRACE_SECONDS = 5.0


class Models:
    """The model servers of one configuration, with a separate folder for their sockets."""

    def __init__(self, settings: ProcessSettings, run_dir: Path, hang_limits: HangLimits | None) -> None:
        private_dir(run_dir)
        self.run_dir = run_dir
        self.settings = settings.models
        self.servers = [ModelServer(name, own, run_dir, hang_limits) for name, own in self.settings.items()]

    async def start(self, progress: Callable[[Progress], None] = lambda _: None) -> None:
        """Starts all and waits until their models are loaded. If one fails, stops all and raises CommandError."""
        text = load_progress.title([server.model for server in self.servers])
        progress(Progress(text))
        following = asyncio.create_task(load_progress.follow(self._loading, text, progress))
        try:
            await asyncio.gather(*(server.start() for server in self.servers))
        except CommandError:
            await self.stop()
            raise
        finally:
            following.cancel()

    def _loading(self) -> list[tuple[int | None, Path]]:
        return [(server.process.pid if server.process else None, server.model) for server in self.servers]

    async def stop(self) -> None:
        """Stops all and waits for their ends."""
        await asyncio.gather(*(server.stop(_GRACE_SECONDS) for server in self.servers))
