"""Asynchronous calls on a channel."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from parley_client import calls
from parley_client.calls import Call, CallOptions, Method, Settings
from parley_client.metadata import by_name
from parley_client.v1 import models_pb2


class AsyncTransport:
    """Makes calls on a channel."""

    def __init__(self, made: grpc.aio.Channel, settings: Settings) -> None:
        self.settings = settings
        self.rpcs: dict[str, Any] = {
            method.path: (made.unary_stream if method.is_stream else made.unary_unary)(
                method.path,
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=method.response.FromString,
            )
            for method in calls.METHODS
        }

    async def unary(
        self, method: Method, request: Any, options: CallOptions
    ) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Makes a unary call with its retries; returns the response, initial and trailing metadata."""
        rpc = self.rpcs[method.path]
        with Call(method, self.settings, options) as call:
            while True:
                try:
                    running = rpc(request, timeout=call.remaining(), metadata=call.metadata)
                    response = await running
                except grpc.RpcError as error:
                    await asyncio.sleep(call.failed(error))
                else:
                    initial = by_name(await running.initial_metadata())
                    trailing = by_name(await running.trailing_metadata())
                    call.succeeded(response, trailing)
                    return response, initial, trailing


class AsyncModels:
    """The models that the key may use."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self) -> AsyncIterator[models_pb2.Model]:
        """Yields the models in the order of the service's configuration."""
        listed = await self._transport.unary(calls.LIST_MODELS, models_pb2.ListModelsRequest(), CallOptions())
        for model in listed[0].data:
            yield model

    async def get(self, model: str) -> models_pb2.Model:
        """Returns one model."""
        request = models_pb2.GetModelRequest(model=model)
        found: models_pb2.Model = (await self._transport.unary(calls.GET_MODEL, request, CallOptions()))[0]
        return found
