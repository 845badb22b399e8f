"""The `ChatCompletions` service: validates the request, calls the core, returns the answer."""

from typing import Any, Literal

import grpc

from parley.core.call import CallOptions
from parley.core.chat import Chat
from parley.core.errors import InvalidRequest
from parley.core.messages.ids import canonical_session_id
from parley.core.messages.proto_json import dumps, from_message
from parley.core.messages.text_completion import TextCompletion
from parley.core.offload import is_large, offload
from parley.core.ports import RequestShape
from parley.core.ports.plain_text import PlainText
from parley.core.sessions.idempotency import COMPLETIONS, Key
from parley.rpc import errors, sse
from parley.rpc.call import ERROR_FORM, Call, current
from parley.rpc.call_handler import Context, record_failure, remaining
from parley.rpc.http_body import http_body
from parley.rpc.keep_alive import KeepAlive
from parley.rpc.metadata import headers
from parley.rpc.metadata.forwarded import forwarded
from parley.rpc.metadata.hops import hops
from parley.rpc.metadata.idempotency import idempotency_key
from parley.rpc.request_shape import shape_of
from parley.rpc.stream_output import MAX_PENDING, EventOutput, MessageOutput, StreamOutput
from parley.rpc.typed_forms import set_text
from parley.rpc.unknown_fields import fill_structs
from parley.rpc.validation import validate
from parley.v1 import chat_completions_pb2_grpc as services
from parley.v1.chat_completions_pb2 import (
    DESCRIPTOR,
    ChatCompletion,
    ChatCompletionChunk,
    CreateChatCompletionRequest,
)

_NULLABLE_NAMES: tuple[Literal["stop", "tool_choice", "function_call"], ...] = ("stop", "tool_choice", "function_call")
_NULLABLE = tuple(CreateChatCompletionRequest.DESCRIPTOR.fields_by_name[name] for name in _NULLABLE_NAMES)
_SESSION_ID = CreateChatCompletionRequest.DESCRIPTOR.fields_by_name["session_id"]
_json_body = http_body("application/json")
_MODEL = "parley-model"  # set by the edge if the dialect requires `model`, even with a default model
_VIOLATIONS = "parley-violations"  # violations that the edge has found in the JSON; see errors.decode_violations
_NULLS = "parley-nulls"  # set by the edge if the dialect writes absent fields as null
_FORM = "parley-form"  # set by the edge if the Accept header overrules `stream`


class ChatCompletionsServicer(services.ChatCompletionsServicer):
    """Serves completions: unary or as a stream, as messages or as the bytes of REST."""

    def __init__(self, chat: Chat, keep_alive: KeepAlive) -> None:
        self._chat = chat
        self._keep_alive = keep_alive
        self._forwarded_names = chat.forwarded_headers

    async def CreateChatCompletion(self, request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        """Returns the answer."""
        completion = await self._complete(current(), request, context)
        if isinstance(completion, TextCompletion):
            message = completion.message()
        else:
            current().outcome.receipt_bytes()  # its usage is that of the message, to which `extra` is added
            message = completion
            fill_structs(message)
        set_text(message)
        return message

    async def CreateChatCompletionJson(self, request: CreateChatCompletionRequest, context: Context) -> bytes:
        """Returns the answer as the JSON of REST."""
        call = current()
        completion = await self._complete(call, request, context)
        nulls = _NULLS in call.metadata
        if isinstance(completion, TextCompletion):
            data = completion.json(nulls=nulls)
        else:
            data = dumps(from_message(completion, nulls=nulls))
        return _json_body(data)

    async def _complete(
        self, call: Call, request: CreateChatCompletionRequest, context: Context
    ) -> ChatCompletion | TextCompletion:
        shape = call.shape if call.shape is not None and call.shape.texts is not None and not is_large() else None
        key = await self._prepare(call, request, is_stream=False)
        options = self._options(call, context, key, shape)
        completion = await self._chat.complete(request, call.known_caller, options, call.outcome)
        await headers.send_with_answer(call, context, completion.session_id)
        _record_answer(call, completion)
        return completion

    async def StreamChatCompletion(  # type: ignore[override] # a unary handler: see `add_chat_completions`
        self, request: CreateChatCompletionRequest, context: Context
    ) -> bytes:
        """Writes the answer in typed chunks; returns the last one."""
        key = await self._prepare(current(), request, is_stream=True)
        output = MessageOutput(context)
        try:
            await self._write_answer(request, context, key, output)
            return await output.finish()
        except Exception:
            await output.drain()
            raise
        finally:
            output.close()

    async def StreamChatCompletionEvents(  # type: ignore[override] # a unary handler: see `add_chat_completions`
        self, request: CreateChatCompletionRequest, context: Context
    ) -> bytes:
        """Writes the answer in server-sent events; returns the last ones. One may be a failure."""
        call = current()
        key = await self._prepare(call, request, is_stream=True)
        nulls = _NULLS in call.metadata
        # The object for a field that is not set would take 0.4 KB until the request is dropped.
        include_usage = request.HasField("stream_options") and request.stream_options.include_usage
        writer = sse.EventWriter(include_usage=include_usage, nulls=nulls)
        output = EventOutput(context, writer)
        self._keep_alive.add(output)
        try:
            try:
                await self._write_answer(request, context, key, output)
            except BaseException as error:
                failure = record_failure(call, error) if output.started else None
                if failure is None:
                    raise
                output.add_error(failure, call.metadata.get(ERROR_FORM))
            self._keep_alive.remove(output)  # the last event is that of the answer
            return await output.finish()
        finally:
            self._keep_alive.remove(output)
            output.close()

    async def _prepare(self, call: Call, request: CreateChatCompletionRequest, *, is_stream: bool) -> Key | None:
        """Applies the metadata, drops nulls and validates the request; returns its `Idempotency-Key`."""
        metadata, shape = call.metadata, call.shape or shape_of(request)
        call.shape = None  # its texts may be large, and a stream lasts long
        if headers.SESSION in metadata or _SESSION_ID in shape.fields:
            _set_session(request, metadata.get(headers.SESSION))
        call.log_fields["model"] = request.model[:256]
        if metadata.get(_FORM) == "whole":
            request.ClearField("stream")
            request.ClearField("stream_options")
        if not shape.fields.isdisjoint(_NULLABLE):
            _drop_nulls(request)
        model_required = _MODEL in metadata or not (self._chat.has_default_model or request.session_id)
        violations = metadata.get(_VIOLATIONS)
        found = errors.decode_violations(violations) if violations else ()
        checked = (request, is_stream, model_required, found, shape)
        if is_large():
            await offload(validate, *checked)
        else:
            validate(*checked)
        return idempotency_key(metadata, COMPLETIONS)

    async def _write_answer(
        self, request: CreateChatCompletionRequest, context: Context, key: Key | None, output: StreamOutput
    ) -> None:
        call = current()
        options = self._options(call, context, key)
        call.drop_metadata()
        last: ChatCompletionChunk | None = None
        chunks = self._chat.stream(request, call.known_caller, options, call.outcome)
        try:  # as `aclosing`, without its three functions for each stream
            async for batch in chunks:
                if output.size > MAX_PENDING:
                    await output.drain()
                output.add(batch)
                if not isinstance(batch, PlainText) and batch and not batch[-1].choices:
                    last = batch[-1]
                del batch  # a stream that waits keeps nothing of what it has sent
        finally:
            await chunks.aclose()
        if last is not None:
            _record_answer(call, last)

    def _options(self, call: Call, context: Context, key: Key | None, shape: RequestShape | None = None) -> CallOptions:
        """Returns what the metadata and the deadline of a call set. Raises DeadlineExceeded."""
        metadata, names = call.metadata, self._forwarded_names
        passed = forwarded(metadata, names) if names else ()
        control = headers.cache_control(call, context)
        return CallOptions(remaining(context), key, hops(metadata), call.trace, shape, passed, call.request_id, control)


def add_chat_completions(servicer: ChatCompletionsServicer, server: grpc.aio.Server) -> None:
    """Adds the service to a server.

    The streaming methods are registered as unary ones, which write all messages but the last and return that: gRPC
    sends it in one batch with the status. On the wire both forms are the same.
    """
    read, unary = CreateChatCompletionRequest.FromString, grpc.unary_unary_rpc_method_handler
    handlers = {
        "CreateChatCompletion": unary(servicer.CreateChatCompletion, read, ChatCompletion.SerializeToString),
        "CreateChatCompletionJson": unary(servicer.CreateChatCompletionJson, read),
        "StreamChatCompletion": unary(servicer.StreamChatCompletion, read),
        "StreamChatCompletionEvents": unary(servicer.StreamChatCompletionEvents, read),
    }
    name = DESCRIPTOR.services_by_name["ChatCompletions"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


def _set_session(request: CreateChatCompletionRequest, header: str | None) -> None:
    """Sets the session from the body or the header; an empty one starts a new session.

    Raises:
        InvalidRequest: Body and header name different sessions.
    """
    session_ids = {canonical_session_id(text) for text in (request.session_id, header) if text}
    if len(session_ids) > 1:
        message = "`chatSessionId` and the X-Chat-Session-ID header name different sessions; send one of them"
        raise InvalidRequest(message, param="chatSessionId")
    request.ClearField("session_id")
    for session_id in session_ids:
        request.session_id = session_id


def _drop_nulls(request: CreateChatCompletionRequest) -> None:
    for name in _NULLABLE_NAMES:
        if request.HasField(name) and getattr(request, name).HasField("null_value"):
            request.ClearField(name)


def _record_answer(call: Call, answer: Any) -> None:
    """Adds the answer's fields to the log line."""
    fields, usage = call.log_fields, answer.usage
    fields["model"] = answer.model
    if answer.session_id:
        fields["session"] = answer.session_id
    fields["prompt_tokens"], fields["completion_tokens"] = usage.prompt_tokens, usage.completion_tokens
