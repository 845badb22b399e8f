"""What every call of Parley's passes through, in the order of `interceptors()`.

Health and reflection belong to the internal listener and pass by all of it.
"""

import asyncio
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from parley.core.chat import CallOutcome
from parley.core.errors import DeadlineExceeded, InvalidRequest, ParleyError, ShuttingDown, Unauthenticated
from parley.core.offload import offload, record_size
from parley.core.ports import Authenticator, Caller
from parley.core.usage.limits import RateLimitStatus
from parley.rpc import errors, unknown_fields
from parley.rpc.call import Call, caller, current, set_current
from parley.rpc.metadata import rate_limits, receipts
from parley.v1.chat_completions_pb2 import DESCRIPTOR, CreateChatCompletionRequest

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Awaitable[Any]]
MethodHandler = Any  # grpc.RpcMethodHandler, whose stubs hide its attributes
ReadRateLimits = Callable[[Caller], Awaitable[Sequence[RateLimitStatus]]]

_COMPLETIONS = frozenset(DESCRIPTOR.services_by_name["ChatCompletions"].methods_by_name)
_PRINTABLE_ID = re.compile(r"[ -~]{1,256}")  # printable ASCII: it is copied into metadata and into the log
# What the edge has found wrong with a body that it could not send on. It authenticates nobody, and sends the rest of
# the call so that a caller without a good key is told of that first.
_EDGE_ERROR = "parley-refusal"
_KEY_HEADERS = ("x-api-key", "api-key", "x-goog-api-key")  # where other vendors' clients put a key
_UNDECODABLE = (
    "The request cannot be read: it is malformed or not UTF-8, or its JSON is nested too deeply; send it less nested"
)
_log = structlog.get_logger("parley")
# REST's own methods are other forms of the same operations, by the ends of their names.
_OPERATION = re.compile(r"(?P<name>\w+?)(?P<form>Json|Events)?")
# How severe a failed call is, by the name of its status. What its caller can mend is no concern of the operator.
_LEVELS = {
    "INTERNAL": "error",
    "UNKNOWN": "error",
    "DATA_LOSS": "error",
    "UNAVAILABLE": "warning",
    "DEADLINE_EXCEEDED": "warning",
    "RESOURCE_EXHAUSTED": "warning",
}


def interceptors(
    authenticator: Authenticator, read_rate_limits: ReadRateLimits, running: set[Call]
) -> list[grpc.aio.ServerInterceptor]:
    """Returns the interceptors, the outermost first. `running` always has the calls that are being answered."""
    return [
        ContextInterceptor(running),  # first, so that everything after it can be traced
        LogInterceptor(),  # outside of all that can fail, so that every call has its line
        ErrorInterceptor(),  # whatever is raised below becomes a status
        AuthInterceptor(authenticator),  # before the body is read, so that strangers cost little
        RateLimitsInterceptor(read_rate_limits),  # after it is known who calls, and before anything can be refused
        DecodeInterceptor(),  # here and not in gRPC, where a malformed request would be INTERNAL
    ]


class _Interceptor(grpc.aio.ServerInterceptor, ABC):
    """Wraps the behaviour of each of Parley's methods, once a method."""

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


class ContextInterceptor(_Interceptor):
    """Makes the `Call`, and returns its ids and its receipt in the trailing metadata."""

    def __init__(self, running: set[Call]) -> None:
        super().__init__()
        self._running = running

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        async def handle(request: Any, context: Context) -> Any:
            call = _call(name, context)
            set_current(call)
            context.set_trailing_metadata(_ids(call))
            self._running.add(call)
            try:
                answer = await inner(request, context)
                context.set_trailing_metadata((*_ids(call), *receipts.metadata(call.outcome.receipt)))
                return answer
            finally:
                self._running.discard(call)

        return handle


class LogInterceptor(_Interceptor):
    """Writes the canonical line: what was asked, by whom, how it ended, how long it took."""

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        async def handle(request: Any, context: Context) -> Any:
            started = time.perf_counter()
            try:
                return await inner(request, context)
            finally:
                _write_line(current(), (time.perf_counter() - started) * 1000)

        return handle


class ErrorInterceptor(_Interceptor):
    """Ends a failed call with the status, details and metadata of its error."""

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        async def handle(request: Any, context: Context) -> Any:
            call = current()
            try:
                return await inner(request, context)
            except BaseException as error:
                failure = record_failure(call, error)
                if failure is None:
                    raise
                trailing = (*_ids(call), *_outcome_metadata(call.outcome), *errors.trailing_metadata(failure))
                await context.abort(errors.status(failure), failure.message, trailing)

        return handle


class AuthInterceptor(_Interceptor):
    """Lets in who has a key."""

    def __init__(self, authenticator: Authenticator) -> None:
        super().__init__()
        self._authenticator = authenticator

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        async def handle(request: Any, context: Context) -> Any:
            call = current()
            call.caller = await self._authenticate(call)
            return await inner(request, context)

        return handle

    async def _authenticate(self, call: Call) -> Caller:
        try:
            return await self._authenticator.authenticate(call.metadata.get("authorization"))
        except Unauthenticated:
            misplaced = next((name for name in _KEY_HEADERS if call.metadata.get(name)), None)
            raise Unauthenticated(misplaced) from None


class RateLimitsInterceptor(_Interceptor):
    """Finds out how the caller of a completion stands where that was refused too early to know it."""

    def __init__(self, read_rate_limits: ReadRateLimits) -> None:
        super().__init__()
        self._read_rate_limits = read_rate_limits

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        if name not in _COMPLETIONS:
            return inner

        async def handle(request: Any, context: Context) -> Any:
            try:
                return await inner(request, context)
            except ParleyError:
                outcome = current().outcome
                if outcome.rate_limits is None:
                    with suppress(ParleyError):  # the call has failed already
                        outcome.rate_limits = await self._read_rate_limits(caller())
                raise

        return handle


class DecodeInterceptor(_Interceptor):
    """Reads the request from its bytes."""

    def _reader(self, handler: MethodHandler) -> Any:
        return None  # the bytes as they are

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        read = handler.request_deserializer

        def decode(data: bytes) -> Any:
            request = read(data)
            if isinstance(request, CreateChatCompletionRequest):
                unknown_fields.read(request, data)
            return request

        async def handle(data: bytes, context: Context) -> Any:
            refusal = current().metadata.get(_EDGE_ERROR)
            if refusal:
                raise InvalidRequest.of(errors.read_mirror(refusal))
            record_size(size=len(data))
            try:
                request = await offload(decode, data)
            except DecodeError as error:
                raise InvalidRequest(_UNDECODABLE) from error
            return await inner(request, context)

        return handle


def record_failure(call: Call, error: BaseException) -> ParleyError | None:
    """Notes why a call failed and returns it as the caller may see it; None where no caller is left to see it.

    A cancelled call is one whose caller has left, unless its deadline has passed or this worker is stopping.
    """
    if isinstance(error, asyncio.CancelledError) and call.stopping:
        call.task.uncancel()
        error = ShuttingDown()
    elif not isinstance(error, Exception) or isinstance(error, grpc.aio.InternalError):  # gRPC's word for a lost caller
        call.status = "CANCELLED"
        return None
    call.failure = errors.as_parley_error(error, call.request_id)
    call.status = errors.status(call.failure).name
    return call.failure


def remaining(context: Context) -> float | None:
    """Returns the caller's deadline as a time of the event loop's clock, or None. Raises DeadlineExceeded."""
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


def _printable_id(text: str | None) -> str | None:
    """Returns an id that may stand in a log line and in metadata; the edge checks those of REST callers likewise."""
    return text if text and _PRINTABLE_ID.fullmatch(text) else None


def _ids(call: Call) -> tuple[tuple[str, str], ...]:
    return (("x-request-id", call.request_id), ("x-correlation-id", call.correlation_id))


def _outcome_metadata(outcome: CallOutcome) -> tuple[tuple[str, str | bytes], ...]:
    return (*rate_limits.metadata(outcome.rate_limits or ()), *receipts.metadata(outcome.receipt))


def _write_line(call: Call, milliseconds: float) -> None:
    operation = _OPERATION.fullmatch(call.method)
    name, form = operation.groups() if operation else (call.method, None)
    fields = {
        "method": name,
        "status": call.status,
        "ms": round(milliseconds, 1),
        "request_id": call.request_id,
    }
    if form is not None:
        fields["form"] = form.lower()
    if call.correlation_id != call.request_id:
        fields["correlation_id"] = call.correlation_id
    if call.caller is not None:
        fields["account"] = call.caller.account
        fields["key"] = call.caller.key_id
    fields.update(call.log_fields)
    if call.outcome.replayed:
        fields["replayed"] = True
    if call.outcome.receipt is not None:
        fields.update(receipts.fields(call.outcome.receipt, call.outcome.failure_causes))
    if call.failure is not None:
        fields["reason"] = errors.name(call.failure)
        fields["error"] = call.failure.message
        if call.failure.cause:
            fields["cause"] = call.failure.cause
    getattr(_log, _LEVELS.get(call.status, "info"))("call", **fields)
