"""Synchronous calls on a channel."""

import time
from collections.abc import Iterator
from typing import Any

import grpc

from parley_client import calls
from parley_client.calls import Call, CallOptions, Method, Settings
from parley_client.metadata import by_name
from parley_client.v1 import models_pb2


class Transport:
    """Makes calls on a channel."""

    def __init__(self, made: grpc.Channel, settings: Settings) -> None:
        self.settings = settings
        self.rpcs: dict[str, Any] = {
            method.path: (made.unary_stream if method.is_stream else made.unary_unary)(
                method.path,
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=method.response.FromString,
            )
            for method in calls.METHODS
        }

    def unary(self, method: Method, request: Any, options: CallOptions) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Makes a unary call with its retries; returns the response, initial and trailing metadata."""
        rpc = self.rpcs[method.path]
        with Call(method, self.settings, options) as call:
            while True:
                try:
                    response, done = rpc.with_call(request, timeout=call.remaining(), metadata=call.metadata)
                except grpc.RpcError as error:
                    time.sleep(call.failed(error))
                else:
                    initial, trailing = by_name(done.initial_metadata()), by_name(done.trailing_metadata())
                    call.succeeded(response, trailing)
                    return response, initial, trailing


class Models:
    """The models that the key may use."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[models_pb2.Model]:
        """Yields the models in the order of the service's configuration."""
        yield from self._transport.unary(calls.LIST_MODELS, models_pb2.ListModelsRequest(), CallOptions())[0].data

    def get(self, model: str) -> models_pb2.Model:
        """Returns one model."""
        request = models_pb2.GetModelRequest(model=model)
        found: models_pb2.Model = self._transport.unary(calls.GET_MODEL, request, CallOptions())[0]
        return found
