"""The bare servicer: checks the key, posts to the upstream, answers. Nothing else that Parley does."""

import hashlib
import hmac
from typing import Any

import grpc
import orjson
from google.api.httpbody_pb2 import HttpBody

from parley.rpc.authorization_messages import CheckRequest, CheckResponse
from parley.v1 import chat_completions_pb2_grpc as services
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from tests.decoding import Decoding
from tests.load.floor.answers import ChunkReader, EventWriter, completion, completion_json
from tests.load.floor.exchange import Exchanges

_CHECKER = "envoy.service.auth.v3.Authorization"
_Context = grpc.aio.ServicerContext[Any, Any]


def add_servicer(servicer: "Servicer", server: grpc.aio.Server) -> None:
    """Adds the completions, and the check that the edge makes."""
    decoding: Any = Decoding(server)
    services.add_ChatCompletionsServicer_to_server(servicer, decoding)
    check = grpc.unary_unary_rpc_method_handler(
        servicer.check, CheckRequest.FromString, CheckResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_CHECKER, {"Check": check}),))


class Servicer(services.ChatCompletionsServicer):
    """Serves completions of models `KIND-off` with the upstream's model `KIND`."""

    def __init__(self, upstream: Exchanges, key: str) -> None:
        self._upstream = upstream
        self._key_hash = hashlib.sha256(key.encode()).digest()

    async def CreateChatCompletion(  # noqa: N802 - gRPC's name
        self, request: CreateChatCompletionRequest, context: _Context
    ) -> ChatCompletion:
        await self._authenticate(context)
        return completion(await self._upstream.post(_body(request)), request.model)

    async def CreateChatCompletionJson(  # noqa: N802 - gRPC's name
        self, request: CreateChatCompletionRequest, context: _Context
    ) -> HttpBody:
        answer = await self.CreateChatCompletion(request, context)
        return HttpBody(content_type="application/json", data=completion_json(answer))

    async def StreamChatCompletion(  # type: ignore[override] # noqa: N802 - gRPC's reader/writer form
        self, request: CreateChatCompletionRequest, context: _Context
    ) -> None:
        await self._authenticate(context)
        events, reader = await self._upstream.stream(_body(request, stream=True)), ChunkReader(request.model)
        try:
            while not events.ended:
                for chunk in reader.read(await events.read()):
                    await context.write(chunk)
        finally:
            events.close()

    async def StreamChatCompletionEvents(  # type: ignore[override] # noqa: N802 - gRPC's reader/writer form
        self, request: CreateChatCompletionRequest, context: _Context
    ) -> None:
        await self._authenticate(context)
        events, reader = await self._upstream.stream(_body(request, stream=True)), ChunkReader(request.model)
        writer = EventWriter()
        try:
            while not events.ended:
                chunks = reader.read(await events.read())
                data = writer.events(chunks, ended=events.ended)
                await context.write(HttpBody(content_type="text/event-stream", data=data))
        finally:
            events.close()

    async def _authenticate(self, context: _Context) -> None:
        """Aborts the call unless its credential is the key."""
        for name, value in context.invocation_metadata() or ():
            if name == "authorization":
                if self._is_key(str(value)):
                    return
                break
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the API key is wrong")

    def _is_key(self, credential: str) -> bool:
        digest = hashlib.sha256(credential.removeprefix("Bearer ").encode()).digest()
        return hmac.compare_digest(digest, self._key_hash)

    async def check(self, request: Any, _context: _Context) -> Any:
        """Checks a credential for Envoy before it reads a body of unknown size."""
        headers = {header.key: header.value for header in request.attributes.request.http.headers}
        if self._is_key(headers["authorization"]):
            return CheckResponse()
        return CheckResponse(status={"code": grpc.StatusCode.UNAUTHENTICATED.value[0]})


def _body(request: CreateChatCompletionRequest, *, stream: bool = False) -> bytes:
    """Returns the JSON of the upstream's request."""
    body: dict[str, object] = {
        "model": request.model.removesuffix("-off"),
        "messages": [{"role": one.role, "content": one.content.string_value} for one in request.messages],
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return orjson.dumps(body)
