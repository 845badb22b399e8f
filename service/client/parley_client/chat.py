"""Synchronous completions."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from parley_client import calls
from parley_client.calls import Call, CallOptions
from parley_client.completion import Completion, completion
from parley_client.parameters import LoopParameters, Parameters
from parley_client.requests import MessagesInput, completion_request
from parley_client.stream import Stream
from parley_client.tools import DEFAULT_ROUNDS, Loop, check_synchronous
from parley_client.transport import Transport


class Chat:
    """Completions."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        messages: MessagesInput,
        *,
        session_id: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> Completion:
        """Returns the answer to a conversation.

        Args:
            messages: The conversation, or the text of one user message; in a session, only the new messages.
            session_id: The session to continue.
            idempotency_key: The key under which the answer is stored; the same key returns the same answer for 24
                hours. Default: a new one for each call.
            timeout: Seconds for the call with all its attempts. Default: the client's.
            **parameters: Other fields of the request.

        Raises:
            ParleyError: The call failed.
            TypeError: A value does not fit its field.
        """
        request = completion_request(messages, parameters, session_id)
        return completion(*self._transport.unary(calls.CREATE, request, CallOptions(timeout, idempotency_key)))

    def stream(
        self,
        messages: MessagesInput,
        *,
        session_id: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> Stream:
        """Returns the answer as a stream, which starts when it is read. Arguments and errors are those of `create`."""
        request = completion_request(messages, parameters, session_id)
        settings, options = self._transport.settings, CallOptions(timeout, idempotency_key)
        rpc: Any = self._transport.rpcs[calls.STREAM.path]
        return Stream(rpc, request, lambda: Call(calls.STREAM, settings, options))

    def run(
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

        Args:
            messages: As in `create`.
            tools: Functions with type hints. The docstring describes a function and its arguments to the model.
            session_id: The session to continue.
            max_rounds: The most rounds of tool calls, after each of which the model is called again.
            timeout: Seconds for each call of the model. Default: the client's.
            **parameters: Other fields of the request.

        Raises:
            ParleyError: A call failed.
            TooManyRoundsError: The model still calls tools after the most rounds.
            TypeError: A function or a value is unsuitable.
        """
        check_synchronous(tools)
        loop = Loop(messages, tools, session_id, max_rounds)
        with_tools: Parameters = {**parameters, "tools": loop.schemas}
        return run(loop, lambda: self.create(loop.messages, session_id=loop.session_id, timeout=timeout, **with_tools))


def run(loop: Loop, create: Callable[[], Completion]) -> Completion:
    """Calls the model, and the functions that it asks for, until it answers; returns that answer."""
    while True:
        answer = create()
        tool_calls = loop.start_round(answer)
        if not tool_calls:
            return answer
        loop.add(answer, [loop.call(tool_call) for tool_call in tool_calls])
