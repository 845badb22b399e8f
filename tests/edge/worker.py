# ruff: noqa: N802 - methods have the names of their RPCs
"""A scripted worker: a real gRPC server on a Unix socket, with Parley's services and health.

As a script with the path of a socket, it is a separate process that answers every completion with its name, and whose
streams never end.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from parley.core.errors import InvalidRequest, ParleyError
from parley.core.messages.proto_json import dumps, from_message
from parley.core.ports import Caller, Credentials
from parley.rpc import errors
from parley.rpc.authentication import Authentication
from parley.rpc.authorization import add_authorization
from parley.rpc.health import ENCODED
from parley.rpc.metadata.challenges import Challenges
from parley.rpc.validation import validate
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsServicer, add_ChatCompletionsServicer_to_server
from parley.v1.identity_pb2 import GetProtectedResourceRequest, ProtectedResource
from parley.v1.identity_pb2_grpc import IdentityServicer, add_IdentityServicer_to_server
from parley.v1.models_pb2 import GetModelRequest, ListModelsRequest, ListModelsResponse, Model
from parley.v1.models_pb2_grpc import ModelsServicer, add_ModelsServicer_to_server
from parley.v1.sessions_pb2 import (
    AddSessionMessagesRequest,
    AddSessionMessagesResponse,
    DeleteSessionRequest,
    DeleteSessionResponse,
    ExportSessionRequest,
    ExportSessionsRequest,
    ForkSessionRequest,
    GetSessionRequest,
    ImportSessionsRequest,
    ImportSessionsResponse,
    ListSessionMessagesRequest,
    ListSessionMessagesResponse,
    ListSessionsRequest,
    ListSessionsResponse,
    Session,
    SessionMessage,
    UpdateSessionRequest,
)
from parley.v1.sessions_pb2_grpc import SessionsServicer, add_SessionsServicer_to_server
from parley.v1.usage_pb2 import GetUsageReportRequest, UsageReport, UsageRow
from parley.v1.usage_pb2_grpc import UsageReportsServicer, add_UsageReportsServicer_to_server
from tests.decoding import Decoding

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Any]]
Stream = Callable[[Any, Context], AsyncIterator[Any]]

SILENT = "silent"
"""The model that a worker process never answers for; it prints the name when it has received a call."""
BEGUN = "begun"
"""The same, but it sends the headers of the answer first."""

OPTIONS = (
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
    ("grpc.max_metadata_size", 20480),
    ("grpc.absolute_max_metadata_size", 28672),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # as the real worker: Envoy pings while no test runs
    ("grpc.keepalive_permit_without_calls", 1),
)


class Worker(ChatCompletionsServicer, SessionsServicer, ModelsServicer, UsageReportsServicer, IdentityServicer):
    """Answers with `complete`, `events` and `export`, which tests set; keeps the last request and its metadata.

    `calls` has every call of every service, so that a test can assert that none arrived. `checks` has the credentials
    that Envoy has had checked; all are valid unless `rejection` is set.
    """

    def __init__(self) -> None:
        self.reset()
        self.health = health.aio.HealthServicer()

    def reset(self) -> None:
        """Resets the records and the handlers."""
        self.complete: Unary = _complete
        self.chunks: Unary = _nothing
        self.events: Stream = _events
        self.export: Stream = _export
        self.calls: list[str] = []
        self.checks: list[Credentials] = []
        self.rejection: ParleyError | None = None
        self.models: ListModelsResponse | None = None
        self.sessions = ListSessionsResponse()
        self.request: Any = None
        self.metadata: dict[str, Any] = {}

    async def serve(self, socket: Path) -> grpc.aio.Server:
        """Starts the server; the caller stops it."""
        server = grpc.aio.server(options=OPTIONS)
        decoding: Any = Decoding(server)
        add_ChatCompletionsServicer_to_server(self, decoding)
        add_SessionsServicer_to_server(self, server)
        add_ModelsServicer_to_server(self, server)
        add_UsageReportsServicer_to_server(self, server)
        add_IdentityServicer_to_server(self, server)
        add_authorization(Authentication(self, Challenges(None)), server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        reflection.enable_server_reflection(("parley.v1.ChatCompletions", reflection.SERVICE_NAME), server)
        await self.set_serving(serving=True)
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        return server

    async def set_serving(self, *, serving: bool) -> None:
        """Sets the status of the health service."""
        statuses = health_pb2.HealthCheckResponse
        for name in ("", ENCODED):
            await self.health.set(name, statuses.SERVING if serving else statuses.NOT_SERVING)

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Records the credentials, and raises `rejection`."""
        self.checks.append(credentials)
        if self.rejection is not None:
            raise self.rejection
        return Caller("default", "key_1")

    async def _enter(self, name: str, request: Any, context: Context) -> None:
        """Records the call, or rejects it with the violations that the edge has found, as the service does."""
        self.request = request
        self.metadata = dict(context.invocation_metadata() or ())
        try:
            refuse(request, self.metadata)
        except InvalidRequest as error:
            await context.abort(errors.status(error), error.message, errors.trailing_metadata(error))
        self.calls.append(name)

    async def CreateChatCompletion(self, request: CreateChatCompletionRequest, context: Any) -> ChatCompletion:
        await self._enter("CreateChatCompletion", request, context)
        answer: ChatCompletion = await self.complete(request, context)
        return answer

    async def CreateChatCompletionJson(self, request: CreateChatCompletionRequest, context: Any) -> HttpBody:
        await self._enter("CreateChatCompletionJson", request, context)
        return HttpBody(
            content_type="application/json", data=dumps(from_message(await self.complete(request, context)))
        )

    async def StreamChatCompletion(
        self, request: CreateChatCompletionRequest, context: Any
    ) -> AsyncIterator[ChatCompletionChunk]:
        await self._enter("StreamChatCompletion", request, context)
        await self.chunks(request, context)
        yield ChatCompletionChunk(id="chatcmpl-1")

    async def StreamChatCompletionEvents(
        self, request: CreateChatCompletionRequest, context: Any
    ) -> AsyncIterator[HttpBody]:
        await self._enter("StreamChatCompletionEvents", request, context)
        async for body in self.events(request, context):
            yield body

    async def GetProtectedResource(self, request: GetProtectedResourceRequest, context: Any) -> ProtectedResource:
        await self._enter("GetProtectedResource", request, context)
        path = f"/{request.path}" if request.path else ""
        return ProtectedResource(
            resource=self.metadata.get("parley-origin", "") + path, bearer_methods_supported=["header"]
        )

    async def ListModels(self, request: ListModelsRequest, context: Any) -> ListModelsResponse:
        await self._enter("ListModels", request, context)
        return self.models or ListModelsResponse(
            object="list", data=[Model(id="m", object="model", created=7, owned_by="local")]
        )

    async def GetUsageReport(self, request: GetUsageReportRequest, context: Any) -> UsageReport:
        await self._enter("GetUsageReport", request, context)
        return UsageReport(object="list", total=UsageRow(calls=0, cost=0.5))

    async def GetModel(self, request: GetModelRequest, context: Any) -> Model:
        await self._enter("GetModel", request, context)
        return Model(id=request.model, object="model", created=7, owned_by="local")

    async def ListSessions(self, request: ListSessionsRequest, context: Any) -> ListSessionsResponse:
        await self._enter("ListSessions", request, context)
        return self.sessions

    async def GetSession(self, request: GetSessionRequest, context: Any) -> Session:
        await self._enter("GetSession", request, context)
        return Session(id=request.session_id, object="chat.session", turn_count=0)

    async def ListSessionMessages(
        self, request: ListSessionMessagesRequest, context: Any
    ) -> ListSessionMessagesResponse:
        await self._enter("ListSessionMessages", request, context)
        return ListSessionMessagesResponse()

    async def ListSessionMessagesJson(self, request: ListSessionMessagesRequest, context: Any) -> HttpBody:
        await self._enter("ListSessionMessagesJson", request, context)
        return HttpBody(content_type="application/json", data=dumps(from_message(ListSessionMessagesResponse())))

    async def ForkSession(self, request: ForkSessionRequest, context: Any) -> Session:
        await self._enter("ForkSession", request, context)
        return Session(id="new", object="chat.session", turn_count=0, forked_from=request.session_id)

    async def UpdateSession(self, request: UpdateSessionRequest, context: Any) -> Session:
        await self._enter("UpdateSession", request, context)
        return Session(id=request.session_id, object="chat.session", title=request.title)

    async def AddSessionMessages(self, request: AddSessionMessagesRequest, context: Any) -> AddSessionMessagesResponse:
        await self._enter("AddSessionMessages", request, context)
        return AddSessionMessagesResponse(session_id=request.session_id, turn=len(request.messages))

    async def ExportSessions(self, request: ExportSessionsRequest, context: Any) -> AsyncIterator[HttpBody]:
        await self._enter("ExportSessions", request, context)
        yield HttpBody(content_type="application/jsonl", data=b'{"id":"s"}\n')

    async def ImportSessions(self, request: ImportSessionsRequest, context: Any) -> ImportSessionsResponse:
        await self._enter("ImportSessions", request, context)
        return ImportSessionsResponse(imported=len(request.body.data.splitlines()), skipped=0)

    async def ExportSession(self, request: ExportSessionRequest, context: Any) -> AsyncIterator[HttpBody]:
        await self._enter("ExportSession", request, context)
        async for body in self.export(request, context):
            yield body

    async def ExportSessionMessages(self, request: ExportSessionRequest, context: Any) -> AsyncIterator[SessionMessage]:
        await self._enter("ExportSessionMessages", request, context)
        yield SessionMessage(turn=1)

    async def DeleteSession(self, request: DeleteSessionRequest, context: Any) -> DeleteSessionResponse:
        await self._enter("DeleteSession", request, context)
        return DeleteSessionResponse(id=request.session_id, object="chat.session.deleted", deleted=True)


def refuse(request: Any, metadata: dict[str, Any]) -> None:
    """Raises InvalidRequest for the violations of the edge and of the service, as the service does."""
    if "parley-refusal" in metadata:
        raise InvalidRequest.of(errors.decode_violations(metadata["parley-refusal"]))
    found = errors.decode_violations(metadata.get("parley-violations", ""))
    if found or "parley-model" in metadata:
        validate(request, is_stream=True, model_required="parley-model" in metadata, found=found)


async def _complete(_request: CreateChatCompletionRequest, _context: Context) -> ChatCompletion:
    return ChatCompletion(id="chatcmpl-1", object="chat.completion", created=7, model="m")


async def _nothing(_request: CreateChatCompletionRequest, _context: Context) -> None:
    """Lets a stream of messages begin; a test raises here."""


async def _events(_request: CreateChatCompletionRequest, _context: Context) -> AsyncIterator[HttpBody]:
    yield HttpBody(content_type="text/event-stream", data=b'data: {"id":"chatcmpl-1"}\n\n')
    yield HttpBody(data=b"data: [DONE]\n\n")


async def _export(request: ExportSessionRequest, context: Context) -> AsyncIterator[HttpBody]:
    await context.send_initial_metadata((("x-chat-session-id", request.session_id),))
    yield HttpBody(content_type="application/jsonl", data=b'{"role":"user","turn":1}\n')
    yield HttpBody(content_type="application/jsonl", data=b'{"role":"assistant","turn":1}\n')


def gated(worker: Worker, last: bytes = b"data: 2\n\n") -> asyncio.Event:
    """Makes streams of events wait between `data: 1` and the last event until the gate opens; returns the gate."""
    gate = asyncio.Event()

    async def events(_request: CreateChatCompletionRequest, _context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="text/event-stream", data=b"data: 1\n\n")
        await gate.wait()
        yield HttpBody(data=last)

    worker.reset()
    worker.events = events
    return gate


async def _main(socket: Path) -> None:
    """Serves until killed, and answers with the socket's name as the model."""
    worker = Worker()

    async def fall_silent(request: CreateChatCompletionRequest, context: Context) -> None:
        if request.model == BEGUN:
            await context.send_initial_metadata((("x-chat-session-id", "begun"),))
        if request.model in {SILENT, BEGUN}:
            print(request.model, flush=True)  # noqa: T201 - the test waits for it
            await asyncio.Event().wait()

    async def complete(request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        await fall_silent(request, context)
        return ChatCompletion(id="chatcmpl-1", model=socket.stem)

    async def events(request: CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        await fall_silent(request, context)
        yield HttpBody(content_type="text/event-stream", data=b"data: 1\n\n")
        await asyncio.Event().wait()

    worker.complete, worker.events = complete, events
    server = await worker.serve(socket)
    print("ready", flush=True)  # noqa: T201 - the test waits for it
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
