"""The interceptors of every call to Parley's services, in the order of `parley.rpc.chain`.

Health and reflection are not intercepted: they belong to the internal listener.
"""

import asyncio
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from parley.core.errors import DeadlineExceeded, InvalidRequest, ParleyError
from parley.core.offload import offload, record_size
from parley.rpc import call_log, errors, request_forms, typed_forms
from parley.rpc.authentication import CLIENT_ADDRESS, Authentication
from parley.rpc.call import Call, current, set_current
from parley.rpc.metadata import rate_limits, receipts
from parley.rpc.metadata.challenges import Challenges
from parley.v1 import identity_pb2
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Awaitable[Any]]
MethodHandler = Any  # grpc.RpcMethodHandler, whose stubs hide its attributes

_TYPED = frozenset({"CreateChatCompletion", "StreamChatCompletion"})  # the methods that the edge does not call for REST
PUBLIC = frozenset(identity_pb2.DESCRIPTOR.services_by_name["Identity"].methods_by_name)
"""The methods that need no credential."""
_PRINTABLE_ID = re.compile(r"[ -~]{1,256}")  # printable ASCII: it is copied into metadata and into the log
# The violations of a body that the edge cannot forward. The edge does not authenticate: it sends the call without the
# body, so that a missing or invalid key is reported first.
_EDGE_ERROR = "parley-refusal"
_UNDECODABLE = (
    "The request cannot be read: it is malformed or not UTF-8, or its JSON is nested too deeply; send it less nested"
)


class Interceptor(grpc.aio.ServerInterceptor, ABC):
    """Wraps the handlers of Parley's methods; each wrapped handler is cached."""

    def __init__(self) -> None:
        self._wrapped: dict[str, MethodHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> MethodHandler:
        """Returns the method's handler, wrapped."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            wrapped = await continuation(handler_call_details)
            if wrapped is not None and method.startswith("/parley."):
                wrapped = self._wrapped[method] = self._wrap_handler(wrapped, method.rpartition("/")[2])
        return wrapped

    def _wrap_handler(self, handler: MethodHandler, name: str) -> MethodHandler:
        reader = self._reader(handler)
        if handler.response_streaming:
            behaviour = self._wrap(handler.unary_stream, handler, name)
            return grpc.unary_stream_rpc_method_handler(behaviour, reader, handler.response_serializer)
        behaviour = self._wrap(handler.unary_unary, handler, name)
        return grpc.unary_unary_rpc_method_handler(behaviour, reader, handler.response_serializer)

    def _reader(self, handler: MethodHandler) -> Any:
        return handler.request_deserializer

    @abstractmethod
    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour: ...


class ContextInterceptor(Interceptor):
    """Creates the `Call` and returns its ids and its receipt in the trailing metadata."""

    def __init__(self, running: set[Call], *, behind_edge: bool) -> None:
        super().__init__()
        self._running = running
        self._behind_edge = behind_edge

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        async def handle(request: Any, context: Context) -> Any:
            call = _call(name, context)
            if not self._behind_edge:
                call.metadata[CLIENT_ADDRESS] = _address(context.peer())
            set_current(call)
            context.set_trailing_metadata(_ids(call))
            self._running.add(call)
            try:
                answer = await inner(request, context)
                context.set_trailing_metadata((*_ids(call), *_receipt(call)))
                return answer
            finally:
                self._running.discard(call)

        return handle


class LogInterceptor(Interceptor):
    """Writes the canonical log line of the call."""

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        async def handle(request: Any, context: Context) -> Any:
            started = time.perf_counter()
            try:
                return await inner(request, context)
            finally:
                call_log.write(current(), (time.perf_counter() - started) * 1000)

        return handle


class ErrorInterceptor(Interceptor):
    """Ends a failed call with the status, details and metadata of its error."""

    def __init__(self, challenges: Challenges) -> None:
        super().__init__()
        self._challenges = challenges

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        async def handle(request: Any, context: Context) -> Any:
            call = current()
            try:
                return await inner(request, context)
            except BaseException as error:
                failure = record_failure(call, error)
                if failure is None:
                    raise
                limits = rate_limits.metadata(call.outcome.rate_limits or ())
                hints = errors.trailing_metadata(failure, context.time_remaining())
                trailing = (*_ids(call), *limits, *_receipt(call), *hints, *self._challenges.metadata(failure))
                await context.abort(errors.status(failure), failure.message, trailing)

        return handle


class AuthInterceptor(Interceptor):
    """Authenticates the caller by its API key or access token."""

    def __init__(self, authentication: Authentication) -> None:
        super().__init__()
        self._authentication = authentication

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        if name in PUBLIC:
            return inner

        async def handle(request: Any, context: Context) -> Any:
            call = current()
            call.caller = await self._authentication.authenticate(call)
            return await inner(request, context)

        return handle


class DecodeInterceptor(Interceptor):
    """Decodes the request from its bytes."""

    def _reader(self, handler: MethodHandler) -> Any:
        return None  # the bytes as they are

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        read = handler.request_deserializer

        def decode(data: bytes) -> Any:
            request = read(data)
            if isinstance(request, CreateChatCompletionRequest):
                request_forms.read(request, data)
                if name in _TYPED:
                    typed_forms.infer_types(request)
            return request

        async def handle(data: bytes, context: Context) -> Any:
            violations = current().metadata.get(_EDGE_ERROR)
            if violations:
                raise InvalidRequest.of(errors.decode_violations(violations))
            record_size(size=len(data))
            try:
                request = await offload(decode, data)
            except DecodeError as error:
                raise InvalidRequest(_UNDECODABLE) from error
            return await inner(request, context)

        return handle


def record_failure(call: Call, error: BaseException) -> ParleyError | None:
    """Records why a call failed.

    A cancellation means that the caller has disconnected, unless this worker has cancelled the call.

    Returns:
        The error to return to the caller; None if the caller has disconnected.
    """
    if isinstance(error, asyncio.CancelledError) and call.cancel_cause is not None:
        call.task.uncancel()
        error = call.cancel_cause
    elif not isinstance(error, Exception) or isinstance(error, grpc.aio.InternalError):  # gRPC: connection lost
        call.status = "CANCELLED"
        return None
    call.failure = errors.as_parley_error(error, call.request_id)
    call.status = errors.status(call.failure).name
    return call.failure


def remaining(context: Context) -> float | None:
    """Returns the caller's deadline in seconds of the event loop's clock; None without a deadline.

    Raises:
        DeadlineExceeded: The deadline has passed.
    """
    seconds = context.time_remaining()
    if seconds is None:
        return None
    if seconds <= 0:
        raise DeadlineExceeded
    return asyncio.get_running_loop().time() + seconds


def _call(method: str, context: Context) -> Call:
    metadata: dict[str, str] = dict(context.invocation_metadata() or ())  # type: ignore[arg-type]
    request_id = _printable_id(metadata.get("x-request-id")) or os.urandom(16).hex()
    correlation_id = _printable_id(metadata.get("x-correlation-id")) or request_id
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a handler always runs in a task
    return Call(method, request_id, correlation_id, metadata, task)


def _address(peer: str) -> str:
    """Returns the IP address of `ipv4:192.0.2.1:1024` or `ipv6:[2001:db8::1]:1024`; empty for a Unix socket."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in {"ipv4", "ipv6"} else ""


def _printable_id(text: str | None) -> str | None:
    """Returns the id if it is safe in a log line and in metadata. The edge applies the same rule to REST callers."""
    return text if text and _PRINTABLE_ID.fullmatch(text) else None


def _ids(call: Call) -> tuple[tuple[str, str], ...]:
    return (("x-request-id", call.request_id), ("x-correlation-id", call.correlation_id))


def _receipt(call: Call) -> tuple[tuple[str, str | bytes], ...]:
    return receipts.metadata(call.outcome.receipt, call.metadata.get(receipts.FORM))
