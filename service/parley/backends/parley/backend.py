"""Another Parley, over gRPC."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from parley.backends.deadlines import Deadlines, SilenceTimer
from parley.backends.errors import classifier, local_resources
from parley.backends.errors.redaction import secret_values
from parley.backends.parley.errors import RpcErrorFactory, of_the_library
from parley.backends.parley.extra_fields import as_text, chunk_as_text
from parley.config import Metadata, ParleyBackend
from parley.core.errors import UpstreamUnavailable
from parley.core.ports import HOPS, UpstreamCall
from parley.grpc_channel import open_channel
from parley.v1.chat_completions_pb2 import (
    DESCRIPTOR,
    ChatCompletion,
    ChatCompletionChunk,
    CreateChatCompletionRequest,
)
from parley.v1.models_pb2 import DESCRIPTOR as MODELS
from parley.v1.models_pb2 import ListModelsResponse

_SERVICE = DESCRIPTOR.services_by_name["ChatCompletions"].full_name
_MODELS = MODELS.services_by_name["Models"].full_name
_MAX_BUFFERED = 1024 * 1024  # bytes of a stream that are buffered for a slow consumer
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
_NO_LIST = "The list of models of the backend cannot be read"
_LIST_SECONDS = 20.0
_UNHEALTHY = "The health check of the backend failed"
_NOT_SENT: tuple[Literal["session_id", "stream", "metadata", "continue_final_message"], ...] = (
    "session_id",
    "stream",
    "metadata",
    "continue_final_message",
)
_IDENTITY: tuple[Literal["session_id", "id", "object", "created", "model"], ...] = (
    "session_id",
    "id",
    "object",
    "created",
    "model",
)
_UnaryCall = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
_StreamingCall = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
_UNSETTLED = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)


class Parley:
    """A backend that is another Parley.

    Calls are sent with `store: false`, without session and without `metadata`, so the other side stores nothing. The
    constructor requires a running event loop.

    Args:
        settings: Its address, key, headers and certificates.

    Raises:
        ConfigError: If a file of certificates cannot be read.
    """

    supports_prefill = True

    def __init__(self, settings: ParleyBackend) -> None:
        self._channel = open_channel(settings.target, settings, *_OPTIONS)
        headers = tuple((name.lower(), value) for name, value in settings.headers.items())
        key = settings.api_key
        self._metadata = (*headers, ("authorization", f"Bearer {key}")) if key else headers
        self._forwarded = frozenset(settings.forward_headers)
        self._errors = RpcErrorFactory(key, *secret_values(settings.headers))
        # Responses are deserialized here: gRPC would turn a decode error into None.
        self._create: _UnaryCall = self._channel.unary_unary(f"/{_SERVICE}/CreateChatCompletion")
        self._stream: _StreamingCall = self._channel.unary_stream(f"/{_SERVICE}/StreamChatCompletion")
        self._check: _UnaryCall = self._channel.unary_unary("/grpc.health.v1.Health/Check")
        self._list: _UnaryCall = self._channel.unary_unary(f"/{_MODELS}/ListModels")
        self._connecting: asyncio.Task[None] | None = None

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Returns the complete answer; see the port."""
        deadlines = Deadlines(call)
        await self._connected(deadlines)
        rpc = self._create(
            _request(call, stream=False), timeout=deadlines.remaining(), metadata=self._metadata_of(call)
        )
        try:
            return _completion(await rpc)
        except grpc.aio.AioRpcError as error:
            raise self._errors.from_call(error, call, deadlines) from None
        except DecodeError as error:
            raise classifier.unreadable(call.request.model, f"DecodeError: {error}") from None

    async def stream(self, call: UpstreamCall) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Yields the answer in chunks; see the port."""
        deadlines = Deadlines(call)
        await self._connected(deadlines)
        answer = _StreamState()
        rpc = self._stream(_request(call, stream=True), timeout=deadlines.remaining(), metadata=self._metadata_of(call))
        buffer = _MessageBuffer(rpc)
        silence_timer = SilenceTimer(call, deadlines)
        until = deadlines.first_token
        try:
            while (data := await buffer.next(until)) is not None:
                chunk = answer.read(data)
                yield chunk
                until = silence_timer.record(chunk, is_complete=answer.is_complete)
        except TimeoutError as error:
            if not answer.is_complete:
                raise deadlines.exceeded(error, started=silence_timer.started) from None
        except grpc.aio.AioRpcError as error:
            raise self._errors.from_call(error, call, deadlines, started=silence_timer.started) from None
        except DecodeError as error:
            raise classifier.broken(call.request.model, f"DecodeError: {error}") from None
        finally:
            buffer.close()
        if not answer.is_complete:
            raise classifier.broken(call.request.model, "the stream ended without a finish_reason for every choice")

    async def check(self) -> None:
        """Runs gRPC's health check; see the port."""
        request = health_pb2.HealthCheckRequest(service=_SERVICE)
        try:
            data = await self._check(request.SerializeToString(), metadata=self._metadata)
            status = health_pb2.HealthCheckResponse.FromString(data).status
        except (grpc.aio.AioRpcError, DecodeError) as error:
            exhausted = local_resources.find_in_text(str(error))
            if exhausted is not None:
                raise exhausted from None
            raise UpstreamUnavailable(_UNHEALTHY, cause=self._errors.redact(f"health: {_error_text(error)}")) from None
        if status != health_pb2.HealthCheckResponse.SERVING:
            name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
            raise UpstreamUnavailable(_UNHEALTHY, cause=f"health: {name}")

    async def list_models(self) -> Mapping[str, Metadata]:
        """Returns the models that the other Parley lists; see the port."""
        from parley.backends import model_list  # most backends read no list

        try:
            data = await self._list(b"", timeout=_LIST_SECONDS, metadata=self._metadata)
            listed = ListModelsResponse.FromString(data)
        except (grpc.aio.AioRpcError, DecodeError) as error:
            cause = self._errors.redact(f"ListModels: {_error_text(error)}")
            raise UpstreamUnavailable(_NO_LIST, cause=cause) from None
        return model_list.parse(json_format.MessageToJson(listed).encode())

    async def close(self) -> None:
        """Closes every connection."""
        if self._connecting is not None:
            self._connecting.cancel()
        await self._channel.close()

    def _metadata_of(self, call: UpstreamCall) -> tuple[tuple[str, str], ...]:
        forwarded = [item for item in call.forwarded if item[0] in self._forwarded] if call.forwarded else ()
        return (*self._metadata, (HOPS, str(call.hops)), *(call.trace.headers if call.trace else ()), *forwarded)

    async def _connected(self, deadlines: Deadlines) -> None:
        """Waits until the channel is connected or has failed; in the latter case the call fails immediately."""
        if self._channel.get_state(try_to_connect=True) not in _UNSETTLED:
            return
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._settle())
        try:
            async with asyncio.timeout_at(deadlines.connect_by()):
                await asyncio.shield(self._connecting)
        except TimeoutError:
            raise classifier.unreachable(deadlines.exceeded(TimeoutError("no connection within `connect`"))) from None

    async def _settle(self) -> None:
        while (state := self._channel.get_state(try_to_connect=True)) in _UNSETTLED:
            await self._channel.wait_for_state_change(state)


class _MessageBuffer:
    """Receives the messages of a stream in the background, up to `_MAX_BUFFERED` bytes.

    gRPC discards unread messages when the connection breaks; buffered ones are still delivered.
    """

    def __init__(self, rpc: Any) -> None:
        self._rpc = rpc
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._buffered = 0
        self._has_room = asyncio.Event()
        self._failure: grpc.aio.AioRpcError | None = None
        self._receiver = asyncio.create_task(self._receive())

    async def next(self, until: float) -> bytes | None:
        """Returns the next message; None at the end of the stream.

        Args:
            until: Deadline, as a time of the event loop's clock.

        Raises:
            TimeoutError: If no message arrives before the deadline.
            AioRpcError: If the stream ended with an error.
        """
        if self._messages.empty():
            async with asyncio.timeout_at(until):
                data = await self._messages.get()
        else:
            data = self._messages.get_nowait()
        if data is None and self._failure is not None:
            raise self._failure
        self._buffered -= len(data or b"")
        self._has_room.set()
        return data

    def close(self) -> None:
        """Cancels the call if it has not ended."""
        self._rpc.cancel()
        self._receiver.cancel()

    async def _receive(self) -> None:
        try:
            async for data in self._rpc:
                self._buffered += len(data)
                self._messages.put_nowait(data)
                while self._buffered > _MAX_BUFFERED:
                    self._has_room.clear()
                    await self._has_room.wait()
        except grpc.aio.AioRpcError as error:
            self._failure = error
        finally:
            self._messages.put_nowait(None)


class _StreamState:
    """Parses the chunks of one answer, and tracks whether it is complete."""

    def __init__(self) -> None:
        self._started: set[int] = set()
        self._finished: set[int] = set()

    @property
    def is_complete(self) -> bool:
        """Whether every choice has a finish reason."""
        return bool(self._started) and self._started == self._finished

    def read(self, data: bytes) -> ChatCompletionChunk:
        """Parses a chunk and clears the fields that the core sets. Raises DecodeError."""
        chunk = ChatCompletionChunk.FromString(data)
        _clear_identity(chunk)
        chunk.ClearField("sequence")
        chunk_as_text(chunk)
        for choice in chunk.choices:
            self._started.add(choice.index)
            if choice.HasField("finish_reason"):
                self._finished.add(choice.index)
        return chunk


def _error_text(error: Exception) -> str:
    """Returns the text of an error, with the words of gRPC itself but not with those of a server."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return str(error)
    details = error.details() or ""
    return f"{error.code().name}: {details}" if of_the_library(details) else error.code().name


def _request(call: UpstreamCall, *, stream: bool) -> bytes:
    """Returns the serialized request to send."""
    request = CreateChatCompletionRequest()
    request.CopyFrom(call.request)
    for name in _NOT_SENT:
        request.ClearField(name)
    request.stream_options.ClearField("include_usage")
    if not (stream and request.stream_options.extra_json):
        request.ClearField("stream_options")
    request.model = call.model or call.request.model
    request.store = False
    if call.has_prefill:
        request.continue_final_message = True
    return request.SerializeToString()


def _completion(data: bytes) -> ChatCompletion:
    """Parses a complete response. Raises DecodeError."""
    completion = ChatCompletion.FromString(data)
    if not completion.choices:
        raise DecodeError("the answer has no choices")
    _clear_identity(completion)
    as_text(completion)
    for choice in completion.choices:
        choice.message.ClearField("text")  # the typed form of `content`
    return completion


def _clear_identity(answer: ChatCompletion | ChatCompletionChunk) -> None:
    for name in _IDENTITY:
        answer.ClearField(name)
