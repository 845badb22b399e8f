"""`parley serve`: one worker without Envoy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from parley.cli.shared import options
from parley.cli.shared.checks import check_address, check_config
from parley.config import load
from parley.logs.output import Output
from parley.supervisor import folders
from parley.supervisor.addresses import Address
from parley.supervisor.run import run
from parley.supervisor.stack import Paths, Stack


def serve(
    *,
    config: options.ConfigOption = None,
    state_dir: options.StateDirOption = None,
    listen: options.ListenOption = Address("127.0.0.1", 50051),  # noqa: B008 - a constant
    log_level: options.LogLevelOption = "info",
    quiet: options.QuietOption = False,
) -> None:
    """Run one worker, gRPC only, without Envoy; for example one per container. Starts the built-in model if configured.

    Several workers may share a state folder. SIGTERM finishes the running calls and stops.
    """
    checked = load(config)
    check_config(checked, config)
    check_address(listen, "--listen")
    state = folders.state_dir(state_dir)
    with folders.passing_run_dir() as run_dir:
        level = options.log_level(log_level, quiet)
        stack = Stack(checked, Paths(state, run_dir, None, listen, log_level=level), workers=1)

        @asynccontextmanager
        async def serving() -> AsyncIterator[None]:
            Output(1).write(f"gRPC  {stack.grpc}\n\nCtrl-C stops it.\n".encode())
            yield

        asyncio.run(run(stack, serving, quiet=quiet))
