"""`python -m tests.load.floor UPSTREAM`: runs the servicer and Envoy until SIGTERM.

Reads the API key from stdin, and prints the bound addresses as a line of JSON.
"""

import asyncio
import gc
import json
import signal
import sys
import tempfile
from pathlib import Path

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from parley.rpc.health import ENCODED
from parley.rpc.server_options import server_options
from parley.supervisor import envoy as edge
from parley.supervisor.addresses import Address
from parley.supervisor.children import Envoy
from parley.supervisor.edge_settings import DEFAULT_EDGE
from tests.load.floor.exchange import Exchanges
from tests.load.floor.servicer import Servicer, add_servicer

_STOP_SECONDS = 5.0
_SERVICE = "parley.v1.ChatCompletions"


async def serve(upstream: str, key: str) -> None:
    """Serves until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with tempfile.TemporaryDirectory(prefix="parley-floor-") as name:
        folder = Path(name)
        address = f"unix:{folder}/worker.sock"
        server = await _start_server(address, Servicer(Exchanges(upstream), key))
        envoy = await _start_envoy(folder, address)
        gc.freeze()
        gc.set_threshold(2_000, 50, 50)  # as a worker does
        sys.stdout.write(json.dumps({"rest": str(envoy.http), "grpc": str(envoy.grpc)}) + "\n")
        sys.stdout.flush()
        await stop.wait()
        await envoy.stop(_STOP_SECONDS)
        await server.stop(None)


async def _start_server(address: str, servicer: Servicer) -> grpc.aio.Server:
    """Starts the gRPC server with the options of a worker, and the health that Envoy checks."""
    server = grpc.aio.server(options=server_options(None))
    states = health.aio.HealthServicer()
    for service in ("", ENCODED, _SERVICE):
        await states.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    add_servicer(servicer, server)
    server.add_insecure_port(address)
    await server.start()
    return server


async def _start_envoy(folder: Path, worker: str) -> Envoy:
    """Starts Envoy with the configuration of `parley up` and this worker."""
    loopback = Address("127.0.0.1", 0)
    config = edge.render_in(folder, loopback, loopback, DEFAULT_EDGE)
    envoy = Envoy(config, folder, (loopback, loopback), DEFAULT_EDGE, _STOP_SECONDS, None)
    envoy.set_workers([worker])
    await envoy.start()
    await envoy.wait_applied()
    return envoy


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.stdin.readline().strip()))
