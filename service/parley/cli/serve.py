"""`parley serve`: one worker without Envoy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from parley.cli import settings
from parley.cli.checks import check_address, check_config
from parley.cli.running import run
from parley.cli.settings import Address
from parley.cli.stack import Places, Stack
from parley.config import load
from parley.logs.output import Output


def serve(
    *,
    config: settings.ConfigOption = None,
    state_dir: settings.StateDirOption = None,
    listen: settings.ListenOption = Address("127.0.0.1", 50051),  # noqa: B008 - a constant
    log_level: settings.LogLevelOption = "info",
    quiet: settings.QuietOption = False,
) -> None:
    """Run one worker, gRPC only, without Envoy: for a container per worker. Starts the built-in model if it is used.

    Several may share a state folder. SIGTERM drains it.
    """
    checked = load(config)
    check_config(checked, config)
    check_address(listen, "--listen")
    state = settings.state_dir(state_dir)
    with settings.passing_run_dir() as run_dir:
        level = settings.log_level(log_level, quiet)
        stack = Stack(checked, Places(state, run_dir, None, listen, log_level=level), workers=1)

        @asynccontextmanager
        async def serving() -> AsyncIterator[None]:
            Output(1).write(f"gRPC  {stack.grpc}\n\nCtrl-C stops it.\n".encode())
            yield

        asyncio.run(run(stack, serving, quiet=quiet))
