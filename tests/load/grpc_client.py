"""The gRPC load client: the generated stubs on grpc.aio; every answer is checked."""

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc

from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.load import canned
from tests.load.canned import WrongAnswerError
from tests.load.client import CALL_SECONDS, Target, Timing

if TYPE_CHECKING:
    from parley.v1.chat_completions_pb2_grpc import ChatCompletionsAsyncStub

CLIENTS_PER_CHANNEL = 8
_STAMP = re.compile(r"@(\d+)")
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


class GrpcCaller:
    """One client of Parley's gRPC listener. Clients share connections, like the threads of a service."""

    def __init__(self, target: Target, channel: grpc.aio.Channel) -> None:
        self._target = target
        self._channel = channel
        self._stub: ChatCompletionsAsyncStub = ChatCompletionsStub(channel)
        self._metadata = (("authorization", f"Bearer {target.key}"),)
        self._request = CreateChatCompletionRequest(model=target.model)
        self._request.messages.add(role="user").content.string_value = canned.QUESTION

    async def call(self) -> Timing:
        """Makes a call. Raises WrongAnswerError and grpc.aio.AioRpcError."""
        return await (self._unary() if self._target.kind == "unary" else self._stream())

    async def messages(self) -> Sequence[ChatCompletion | ChatCompletionChunk]:
        """Makes a call; returns its messages, unchecked. Raises grpc.aio.AioRpcError."""
        if self._target.kind == "unary":
            return [await self._stub.CreateChatCompletion(self._request, metadata=self._metadata)]
        return [chunk async for chunk in self._stub.StreamChatCompletion(self._request, metadata=self._metadata)]

    async def close(self) -> None:
        """Closes the channel, which other clients may share: for the end of a run."""
        await self._channel.close()

    async def _unary(self) -> Timing:
        start = time.monotonic_ns()
        answer: ChatCompletion = await self._stub.CreateChatCompletion(
            self._request, metadata=self._metadata, timeout=CALL_SECONDS
        )
        total = (time.monotonic_ns() - start) / 1e9
        choice = answer.choices[0]
        self._check(choice.message.content.string_value, choice.finish_reason, answer.session_id)
        return Timing(total, total)

    async def _stream(self) -> Timing:
        text: list[str] = []
        lags: list[float] = []
        finish_reason = session = ""
        now, first = start, _ = time.monotonic_ns(), 0
        call = self._stub.StreamChatCompletion(self._request, metadata=self._metadata, timeout=CALL_SECONDS)
        async for part in call:
            now = time.monotonic_ns()
            first = first or now
            session = part.session_id or session
            for choice in part.choices:
                text.append(choice.delta.content)
                lags += [(now - int(sent)) / 1e9 for sent in _STAMP.findall(choice.delta.content)]
                finish_reason = choice.finish_reason or finish_reason
        self._check("".join(text), finish_reason, session)
        return Timing((first - start) / 1e9, (time.monotonic_ns() - start) / 1e9, lags)

    def _check(self, text: str, finish_reason: str, session: str) -> None:
        """Raises WrongAnswerError unless the answer is complete, and has a session if expected."""
        canned.check_text(self._target.kind, text, finish_reason)
        if self._target.session != bool(session):
            raise WrongAnswerError(f"the session is {session!r}")


def grpc_callers(target: Target, count: int) -> Sequence[GrpcCaller]:
    """Creates clients, CLIENTS_PER_CHANNEL per connection."""
    channels = [
        grpc.aio.insecure_channel(target.address, options=_OPTIONS) for _ in range(-(-count // CLIENTS_PER_CHANNEL))
    ]
    return [GrpcCaller(target, channels[number // CLIENTS_PER_CHANNEL]) for number in range(count)]
