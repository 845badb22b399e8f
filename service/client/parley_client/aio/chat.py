"""Asynchronous completions."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Unpack

from parley_client import calls
from parley_client.aio.stream import AsyncStream
from parley_client.aio.transport import AsyncTransport
from parley_client.calls import Call, CallOptions
from parley_client.completion import Completion, completion
from parley_client.parameters import LoopParameters, Parameters
from parley_client.requests import MessagesInput, completion_request
from parley_client.tools import DEFAULT_ROUNDS, Loop


class AsyncChat:
    """Completions."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        messages: MessagesInput,
        *,
        session_id: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> Completion:
        """Returns the answer to a conversation. Arguments and errors are those of `Chat.create`."""
        request = completion_request(messages, parameters, session_id)
        return completion(*await self._transport.unary(calls.CREATE, request, CallOptions(timeout, idempotency_key)))

    def stream(
        self,
        messages: MessagesInput,
        *,
        session_id: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> AsyncStream:
        """Returns the answer as a stream, which starts when it is read. Arguments and errors: see `Chat.create`."""
        request = completion_request(messages, parameters, session_id)
        settings, options = self._transport.settings, CallOptions(timeout, idempotency_key)
        rpc: Any = self._transport.rpcs[calls.STREAM.path]
        return AsyncStream(rpc, request, lambda: Call(calls.STREAM, settings, options))

    async def run(
        self,
        messages: MessagesInput,
        tools: Sequence[Callable[..., Any]],
        *,
        session_id: str | None = None,
        max_rounds: int = DEFAULT_ROUNDS,
        timeout: float | None = None,
        **parameters: Unpack[LoopParameters],
    ) -> Completion:
        """Calls the functions that the model asks for until it answers; returns that answer.

        Arguments and errors are those of `Chat.run`. Functions may be coroutine functions; they run one after another.
        """
        loop = Loop(messages, tools, session_id, max_rounds)
        with_tools: Parameters = {**parameters, "tools": loop.schemas}
        return await run(
            loop, lambda: self.create(loop.messages, session_id=loop.session_id, timeout=timeout, **with_tools)
        )


async def run(loop: Loop, create: Callable[[], Awaitable[Completion]]) -> Completion:
    """Calls the model, and the functions that it asks for, until it answers; returns that answer."""
    while True:
        answer = await create()
        tool_calls = loop.start_round(answer)
        if not tool_calls:
            return answer
        loop.add(answer, [await loop.call_async(tool_call) for tool_call in tool_calls])
