"""The admin server: channelz and reflection, on a socket of the owner's."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from parley.rpc.admin import admin_server
from parley.v1 import models_pb2
from parley.v1.models_pb2_grpc import ModelsStub
from tests.rpc.conftest import serving

CHANNELZ = "grpc.channelz.v1.Channelz"


async def test_channelz_counts_the_calls_of_the_worker(tmp_path: Path) -> None:
    """The admin socket, which only its owner may open, shows the server of the worker and its calls."""
    socket = tmp_path / "admin.sock"
    async with admin_server(socket, lambda: None), grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        assert 0o600 == socket.stat().st_mode & 0o777
        stub: Any = channelz_pb2_grpc.ChannelzStub(channel)

        async def servers() -> dict[int, Any]:
            found = (await stub.GetServers(channelz_pb2.GetServersRequest())).server
            return {server.ref.server_id: server.data for server in found}

        others = await servers()
        async with serving(tmp_path) as worker, grpc.aio.insecure_channel(worker.address) as called:
            models: Any = ModelsStub(called)
            metadata = (("authorization", f"Bearer {worker.keys['ada']}"),)
            await models.ListModels(models_pb2.ListModelsRequest(), metadata=metadata)
            [own] = [data for number, data in (await servers()).items() if number not in others]
        assert (1, 1, 0) == (own.calls_started, own.calls_succeeded, own.calls_failed)


async def test_the_admin_socket_describes_itself(tmp_path: Path) -> None:
    """Grpcurl needs no protos on the admin socket."""
    socket = tmp_path / "admin.sock"
    async with admin_server(socket, lambda: None), grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{CHANNELZ}.GetServers")
        async for answer in stub.ServerReflectionInfo(iter([request])):
            assert answer.file_descriptor_response.file_descriptor_proto


async def test_the_worker_itself_has_no_admin_services(tmp_path: Path) -> None:
    """Envoy forwards every call to the worker's own address, so that callers would reach the services there."""
    async with serving(tmp_path) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        stub: Any = channelz_pb2_grpc.ChannelzStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetServers(channelz_pb2.GetServersRequest())
        assert grpc.StatusCode.UNIMPLEMENTED == caught.value.code()
