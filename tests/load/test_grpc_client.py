"""The gRPC load client rejects incomplete answers of a real grpc.aio server."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from parley.v1 import chat_completions_pb2_grpc as services
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from tests.load import canned
from tests.load.canned import WrongAnswerError
from tests.load.client import Target
from tests.load.grpc_client import grpc_callers


class _Server(services.ChatCompletionsServicer):
    """Answers completely, or for the model `short` without the last word."""

    async def CreateChatCompletion(  # noqa: N802 - gRPC's name
        self, request: CreateChatCompletionRequest, context: Any
    ) -> ChatCompletion:
        answer = ChatCompletion()
        choice = answer.choices.add(finish_reason="stop")
        choice.message.content.string_value = "".join(_tokens(request.model))
        return answer

    async def StreamChatCompletion(  # noqa: N802 - gRPC's name
        self, request: CreateChatCompletionRequest, context: Any
    ) -> AsyncIterator[ChatCompletionChunk]:
        for token in _tokens(request.model):
            chunk = ChatCompletionChunk()
            chunk.choices.add().delta.content = token
            yield chunk
        chunk = ChatCompletionChunk()
        chunk.choices.add(finish_reason="stop")
        yield chunk


def _tokens(model: str) -> list[str]:
    return canned.TOKENS[:-1] if model == "short" else canned.TOKENS


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """The address of the running server."""
    server = grpc.aio.server()
    services.add_ChatCompletionsServicer_to_server(_Server(), server)  # type: ignore[abstract] # the edge's way is not called
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.mark.parametrize("kind", ["unary", "burst"])
async def test_incomplete_answers_are_rejected(kind: str, address: str) -> None:
    """Only complete texts are accepted, unary and streaming, and only with the expected session."""
    good, short, stateless = (
        grpc_callers(Target(address, "", model, kind, session=session), 1)[0]
        for model, session in (("good", False), ("short", False), ("good", True))
    )
    timing = await good.call()
    assert 0 < timing.first <= timing.total
    with pytest.raises(WrongAnswerError, match="characters"):
        await short.call()
    with pytest.raises(WrongAnswerError, match="session"):
        await stateless.call()
    for caller in (good, short, stateless):
        await caller.close()
