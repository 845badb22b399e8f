"""The handler of every call to Parley's services: one coroutine from the metadata to the log line.

Health and reflection have handlers of their own: they belong to the internal listener.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc

from parley.core.errors import DeadlineExceeded, ParleyError
from parley.core.ports import Tracer
from parley.metrics.calls import DIALECTS, CallMetrics
from parley.rpc import call_log, errors
from parley.rpc.admission import COMPLETIONS, Admission, require_scope
from parley.rpc.authentication import CLIENT_ADDRESS
from parley.rpc.call import DIALECT, Call, current, set_current
from parley.rpc.decoding import decoder
from parley.rpc.metadata import headers, rate_limits, receipts
from parley.rpc.metadata.challenges import Challenges
from parley.rpc.scopes import PUBLIC, SCOPES

Context = grpc.aio.ServicerContext[Any, Any]
Authenticate = Callable[[Call], Awaitable[None]]
"""Authenticates a call by its metadata, and records in the call what it has found. Raises ParleyError."""
MethodHandler = Any  # grpc.RpcMethodHandler, whose stubs hide its attributes

_MAX_ID_LENGTH = 256


class _AsyncHandler(partial[Any]):
    """A coroutine function that grpc.aio recognizes as one at once.

    At every call grpc.aio asks twice whether a handler is awaitable or else, which takes five more Python functions, a
    coroutine function. It would recognize a `partial` of one by the second question too.
    """

    __slots__ = ()

    def __await__(self) -> Iterator[Any]:
        """Raises TypeError: it exists for the first question alone."""
        raise TypeError("a handler is called, not awaited")


class CallHandler(grpc.GenericRpcHandler):
    """Runs the calls of Parley's services, whose handlers it wraps.

    A server finds the handler of a call here. An interceptor of grpc.aio would do the same with two more coroutines in
    each call.

    Args:
        authenticate: Authenticates the calls of all methods that are not public.
        challenges: Writes the challenges of failed authentications.
        admission: Admits the calls, and requires the scopes of their methods; None for calls of administrators.
        running: Kept up to date with the running calls.
        metrics: Counts the calls; None for no metrics.
        behind_edge: Whether the metadata has the client's address; otherwise the connection has it.
        tracer: Traces the calls; None without tracing.

    Attributes:
        begun: The number of calls that have begun.
    """

    def __init__(  # noqa: PLR0913 - the parts of a call
        self,
        authenticate: Authenticate,
        challenges: Challenges,
        admission: Admission | None,
        running: set[Call],
        metrics: CallMetrics | None = None,
        *,
        behind_edge: bool,
        tracer: Tracer | None = None,
    ) -> None:
        self._authenticate = authenticate
        self._challenges = challenges
        self._admission = admission
        self._running = running
        self._metrics = metrics
        self._behind_edge = behind_edge
        self._tracer = tracer
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._wrapped: dict[str, tuple[str, MethodHandler]] = {}
        self.begun = 0

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Adds the handlers of a service."""
        self._handlers.extend(handlers)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler:
        """Returns the method's handler, wrapped, and creates the `Call`, which the task of the handler shares.

        Returns:
            None for a method of other services.
        """
        method = handler_call_details.method
        known = self._wrapped.get(method) or self._find(method, handler_call_details)
        if known is None:
            return None
        name, wrapped = known
        call = _new_call(name, handler_call_details.invocation_metadata)
        if self._tracer is not None:
            call.trace = self._tracer.start(method[1:].partition("/")[0], call.metadata)
            call.log_fields["trace_id"] = call.trace.trace_id
        set_current(call)
        return wrapped

    def _find(self, method: str, details: grpc.HandlerCallDetails) -> tuple[str, MethodHandler] | None:
        """Returns the name of a method and its wrapped handler, which is cached; None for a method of no handler."""
        for services in self._handlers:
            handler = services.service(details)
            if handler is not None:
                name = method.rpartition("/")[2]
                self._wrapped[method] = name, self._wrap(handler, name)
                return self._wrapped[method]
        return None

    def _wrap(self, handler: MethodHandler, name: str) -> MethodHandler:
        """Wraps a handler as one of a method whose requests are a stream.

        gRPC receives the message of any other method before it calls the handler: a caller without a valid credential
        could make the server hold a large message.
        """
        if handler.response_streaming:
            run = _AsyncHandler(self._runner(handler.unary_stream, handler, name))
            return grpc.stream_stream_rpc_method_handler(run, None, handler.response_serializer)
        run = _AsyncHandler(self._runner(handler.unary_unary, handler, name))
        return grpc.stream_unary_rpc_method_handler(run, None, handler.response_serializer)

    def _runner(self, serve: Any, handler: MethodHandler, name: str) -> Any:
        """Returns the coroutine function that runs a call: all that every call does, in one place and in order."""
        is_public, scope = name in PUBLIC, SCOPES.get(name)
        admission = None if is_public or name in COMPLETIONS else self._admission
        decode = decoder(handler.request_deserializer, name)
        metrics = self._metrics

        async def run(_messages: Any, context: Context) -> Any:
            call = current()
            call.started = time.perf_counter()
            if not self._behind_edge:
                call.metadata[CLIENT_ADDRESS] = _address(context.peer())
                call.metadata.pop(DIALECT, None)
            self._running.add(call)
            self.begun += 1
            try:
                if not is_public:
                    await self._authenticate(call)
                message = await context.read()
                if admission is not None:
                    await admission.admit(call)
                if scope is not None:
                    require_scope(call, scope)
                request = await decode(call, message)
                del message  # it may be large, and a stream lasts long
                answer = await serve(request, context)
                if admission is not None and not call.headers_sent:
                    await headers.send(call, context)
                context.set_trailing_metadata(_ids_and_receipt(call))
            except BaseException as error:  # noqa: BLE001 - raised again, or reported to the caller
                await self._fail(call, error, context)
            else:
                return answer
            finally:
                self._running.discard(call)
                seconds = time.perf_counter() - call.started
                call_log.write(call, seconds * 1000)
                if metrics is not None:
                    dialect = call.metadata.get(DIALECT)
                    metrics.observe(call.method, dialect, call.status, call.failure, call.outcome, seconds)
                call.end()

        return run

    async def _fail(self, call: Call, error: BaseException, context: Context) -> NoReturn:
        """Ends a failed call with the status, details and metadata of its error; raises what gRPC expects."""
        try:
            if self._admission is not None and call.method in COMPLETIONS:
                await self._admission.charge_failed(call, error)
        except BaseException as later:  # noqa: BLE001 - the exhausted limits, or a cancellation
            error = later
        failure = record_failure(call, error)
        if failure is None:
            raise error
        limits = rate_limits.metadata(call.outcome.rate_limits or ())
        hints = errors.trailing_metadata(failure, context.time_remaining())
        trailing = (*_ids_and_receipt(call), *limits, *hints, *self._challenges.metadata(failure))
        await context.abort(errors.status(failure), failure.message, trailing)


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


def _new_call(method: str, pairs: Any) -> Call:
    metadata: dict[str, str] = {}
    for pair in pairs or ():  # `dict` would copy each pair first, since those of gRPC are named tuples
        metadata[pair[0]] = pair[1]
    request_id = _printable_id(metadata.get("x-request-id")) or os.urandom(16).hex()
    correlation_id = metadata.get("x-correlation-id")
    if correlation_id != request_id:  # the edge sets both to the same id if the caller sends neither
        correlation_id = _printable_id(correlation_id) or request_id
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a handler always runs in a task
    return Call(method, request_id, correlation_id, metadata, task)


def _address(peer: str) -> str:
    """Returns the IP address of `ipv4:192.0.2.1:1024` or `ipv6:[2001:db8::1]:1024`; empty for a Unix socket."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in {"ipv4", "ipv6"} else ""


def _printable_id(text: str | None) -> str | None:
    """Returns the id if it is safe in a log line and in metadata. The edge applies the same rule to REST callers."""
    return text if text and len(text) <= _MAX_ID_LENGTH and text.isascii() and text.isprintable() else None


def _ids_and_receipt(call: Call) -> tuple[tuple[str, str | bytes], ...]:
    """Returns them as trailing metadata; nothing for REST: the edge has the ids, and passes no receipt on."""
    if call.metadata.get(DIALECT) in DIALECTS:
        return ()
    ids = (("x-request-id", call.request_id), ("x-correlation-id", call.correlation_id))
    return (*ids, *receipts.metadata(call.outcome.receipt_bytes(), call.metadata.get(receipts.FORM)))
