"""The `ChatCompletions` service: validates the request, calls the core, returns the answer."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Literal

import grpc
from google.api.httpbody_pb2 import HttpBody

from parley.core.call import CallOptions
from parley.core.chat import Chat
from parley.core.errors import InvalidRequest
from parley.core.messages.ids import canonical_session_id
from parley.core.messages.proto_json import dumps, from_message
from parley.core.offload import offload
from parley.core.sessions.idempotency import COMPLETIONS, Key
from parley.rpc import errors, sse
from parley.rpc.call import Call, caller, current
from parley.rpc.interceptors import Context, record_failure, remaining
from parley.rpc.metadata import headers
from parley.rpc.metadata.hops import hops
from parley.rpc.metadata.idempotency import REPLAYED, idempotency_key
from parley.rpc.typed_forms import set_text
from parley.rpc.unknown_fields import fill_structs
from parley.rpc.validation import validate
from parley.v1 import chat_completions_pb2_grpc as services
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest

_SESSION = "x-chat-session-id"
_NULLABLE: tuple[Literal["stop", "tool_choice", "function_call"], ...] = ("stop", "tool_choice", "function_call")
_ERROR_FORM = "parley-error-form"  # the format of an error within a stream, set by the edge; see sse.py
_MODEL = "parley-model"  # set by the edge if the dialect requires `model`, even with a default model
_VIOLATIONS = "parley-violations"  # violations that the edge has found in the JSON; see errors.decode_violations
_NULLS = "parley-nulls"  # set by the edge if the dialect writes absent fields as null
_FORM = "parley-form"  # set by the edge if the Accept header overrules `stream`


class ChatCompletionsServicer(services.ChatCompletionsServicer):
    """Serves completions: unary or as a stream, as messages or as the bytes of REST."""

    def __init__(self, chat: Chat, keep_alive_seconds: float) -> None:
        self._chat = chat
        self._keep_alive_seconds = keep_alive_seconds

    async def CreateChatCompletion(self, request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        """Returns the answer."""
        completion = await self._complete(request, context)
        fill_structs(completion)
        set_text(completion)
        return completion

    async def CreateChatCompletionJson(self, request: CreateChatCompletionRequest, context: Context) -> HttpBody:
        """Returns the answer as the JSON of REST."""
        completion = await self._complete(request, context)
        return HttpBody(content_type="application/json", data=dumps(from_message(completion, nulls=_has_nulls())))

    async def _complete(self, request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        key = await self._prepare(request, is_stream=False)
        call = current()
        options = CallOptions(remaining(context), key, hops(call.metadata))
        completion = await self._chat.complete(request, caller(), options, call.outcome)
        await _send_headers(context, completion)
        _record_answer(call, completion)
        return completion

    async def StreamChatCompletion(  # type: ignore[override] # gRPC's reader/writer form
        self, request: CreateChatCompletionRequest, context: Context
    ) -> None:
        """Writes the answer in typed chunks."""
        key = await self._prepare(request, is_stream=True)
        async with aclosing(self._chunks(request, context, key)) as chunks:
            async for batch in chunks:
                for chunk in batch:
                    fill_structs(chunk)
                    if chunk.sequence == 0:
                        await _send_headers(context, chunk)
                    await _write(context, chunk)

    async def StreamChatCompletionEvents(  # type: ignore[override] # gRPC's reader/writer form
        self, request: CreateChatCompletionRequest, context: Context
    ) -> None:
        """Writes the answer in server-sent events. A failure after the first byte is the last event."""
        key = await self._prepare(request, is_stream=True)
        writer = sse.EventWriter(include_usage=request.stream_options.include_usage, nulls=_has_nulls())
        output = _EventOutput(context, self._keep_alive_seconds)
        try:
            async with aclosing(self._chunks(request, context, key)) as chunks:
                async for batch in chunks:
                    await output.write(writer.events(batch), batch[0] if batch else None)
        except BaseException as error:
            failure = record_failure(current(), error) if output.started else None
            if failure is None:
                raise
            await output.write(sse.error_event(failure, current().metadata.get(_ERROR_FORM)))
        finally:
            output.close()

    async def _prepare(self, request: CreateChatCompletionRequest, *, is_stream: bool) -> Key | None:
        """Applies the metadata, drops nulls and validates the request; returns its `Idempotency-Key`."""
        call = current()
        _set_session(request, call.metadata.get(_SESSION))
        call.log_fields["model"] = request.model[:256]
        if call.metadata.get(_FORM) == "whole":
            request.ClearField("stream")
            request.ClearField("stream_options")
        for name in _NULLABLE:
            if getattr(request, name).HasField("null_value"):
                request.ClearField(name)
        model_required = _MODEL in call.metadata or not (self._chat.has_default_model or request.session_id)
        found = errors.decode_violations(call.metadata.get(_VIOLATIONS, ""))
        await offload(validate, request, is_stream=is_stream, model_required=model_required, found=found)
        return idempotency_key(COMPLETIONS)

    async def _chunks(
        self, request: CreateChatCompletionRequest, context: Context, key: Key | None
    ) -> AsyncGenerator[list[ChatCompletionChunk], None]:
        call = current()
        options = CallOptions(remaining(context), key, hops(call.metadata))
        async with aclosing(self._chat.stream(request, caller(), options, call.outcome)) as chunks:
            async for batch in chunks:
                if batch and not batch[-1].choices:
                    _record_answer(call, batch[-1])
                yield batch


class _EventOutput:
    """Writes events, and keep-alive comments in silences so that proxies keep the connection open."""

    def __init__(self, context: Context, keep_alive_seconds: float) -> None:
        self._context = context
        self._interval = keep_alive_seconds
        self._writing = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._keep_alive_task = self._loop.create_task(self._keep_alive())
        self.started = False

    async def write(self, data: bytes, chunk: ChatCompletionChunk | None = None) -> None:
        """Writes bytes, if any. The first bytes send the headers, with the session of `chunk`."""
        if not data:
            return
        async with self._writing:
            if not self.started:
                await _send_headers(self._context, chunk)
            self.started = True
            self._last = self._loop.time()
            await _write(self._context, HttpBody(content_type="text/event-stream", data=data))

    def close(self) -> None:
        """Stops the keep-alive comments."""
        self._keep_alive_task.cancel()

    async def _keep_alive(self) -> None:
        while True:
            silent = self._loop.time() - self._last
            await asyncio.sleep(self._interval - silent)
            if current().outcome.rate_limits is None:
                self._last = self._loop.time()  # not admitted yet: a rejection needs the headers unsent
            elif self._loop.time() - self._last >= self._interval:
                with suppress(grpc.aio.InternalError):  # the caller has disconnected: the handler is cancelled, too
                    await self.write(sse.KEEP_ALIVE)


async def _write(context: Context, message: ChatCompletionChunk | HttpBody) -> None:
    """Writes a piece of a stream. `writing_since` lets the server find callers that do not read."""
    call = current()
    call.writing_since = asyncio.get_running_loop().time()
    await context.write(message)
    call.writing_since = None


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


def _has_nulls() -> bool:
    return _NULLS in current().metadata


async def _send_headers(context: Context, answer: ChatCompletion | ChatCompletionChunk | None) -> None:
    """Sends the caller's rate limits, the session's id and the mark of a replayed answer, if any."""
    session = ((_SESSION, answer.session_id),) if answer is not None and answer.HasField("session_id") else ()
    await headers.send(context, *session, *((REPLAYED,) if current().outcome.replayed else ()))


def _record_answer(call: Call, answer: Any) -> None:
    """Adds the answer's fields to the log line."""
    call.log_fields["model"] = answer.model
    if answer.HasField("session_id"):
        call.log_fields["session"] = answer.session_id
    call.log_fields["prompt_tokens"] = answer.usage.prompt_tokens
    call.log_fields["completion_tokens"] = answer.usage.completion_tokens
