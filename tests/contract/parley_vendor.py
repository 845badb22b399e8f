"""Another Parley as a vendor of the contract suite of backends, and its messages."""

from typing import Any

import grpc

from parley.backends.parley.backend import Parley
from parley.config import ParleyBackend
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from parley.core.ports import Backend
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import Delta, Usage
from tests.contract.backends import KEY, Mark, Piece
from tests.contract.scripted_parley import Answer, Received, Refusal, ScriptedParley, Step
from tests.upstream import Cut, Stall


def other_parley(target: str, api_key: str | None = None, **more: Any) -> Parley:
    """Creates a backend that is another Parley."""
    return Parley(ParleyBackend(kind="parley", target=target, api_key=api_key, **more))


USAGE = Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12)


def completion(text: str) -> ChatCompletion:
    """Creates a complete response."""
    answer = ChatCompletion(id="chatcmpl-7", object="chat.completion", created=7, model="target-1", usage=USAGE)
    choice = answer.choices.add(index=0, finish_reason="stop")
    choice.message.role = "assistant"
    choice.message.content.string_value = text
    return answer


def chunk(delta: Delta | None = None, finish: str | None = None, **more: Any) -> ChatCompletionChunk:
    """Creates a chunk with one choice, or without choices if there is neither a delta nor a reason."""
    made = ChatCompletionChunk(id="chatcmpl-7", object="chat.completion.chunk", created=7, model="target-1", **more)
    if delta is not None or finish is not None:
        made.choices.add(index=0, delta=delta or Delta(), finish_reason=finish)
    return made


def chunks(*texts: str) -> list[ChatCompletionChunk]:
    """Creates a chunk with the role and one chunk for each text, without an end."""
    deltas = [Delta(role="assistant", content=""), *(Delta(content=text) for text in texts)]
    return [chunk(delta, sequence=index) for index, delta in enumerate(deltas)]


def ending() -> list[ChatCompletionChunk]:
    """Creates the end of a complete stream: finish reason, then usage."""
    return [chunk(finish="stop"), chunk(usage=USAGE)]


GPU = Refusal(grpc.StatusCode.UNAVAILABLE, "the GPU is gone", "UPSTREAM_UNAVAILABLE")
LONG = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "9120 tokens are too many", "CONTEXT_LENGTH_EXCEEDED")
_REFUSALS: dict[type[UpstreamError], tuple[grpc.StatusCode, str]] = {
    UpstreamRejected: (grpc.StatusCode.INVALID_ARGUMENT, "UPSTREAM_REJECTED"),
    ContextLengthExceeded: (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED"),
    ContentPolicy: (grpc.StatusCode.INVALID_ARGUMENT, "CONTENT_POLICY"),
    UpstreamMisconfigured: (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY"),
    UpstreamRateLimited: (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED"),
    UpstreamUnavailable: (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNAVAILABLE"),
}


class ParleyVendor:
    """Another Parley, for the contract suite."""

    name = "parley"

    def serve(self) -> ScriptedParley:
        """Runs a server on a free port."""
        return ScriptedParley()

    def backend(self, address: str) -> Backend:
        """Creates the backend for a server at `host:port`."""
        return other_parley(address, KEY)

    def requested_model(self, received: Received) -> str:
        """Returns the model that a call requested."""
        return received.message.model

    def complete_answer(self, text: str) -> Answer:
        """Scripts a complete response with a usage of 9 + 3 tokens."""
        return Answer([completion(text)])

    def stream(self, *pieces: Piece) -> Answer:
        """Scripts a stream: its start and the pieces."""
        steps: list[Step] = [*chunks()]
        for piece in pieces:
            match piece:
                case str():
                    steps.append(chunk(Delta(content=piece)))
                case Mark.END:
                    steps += ending()
                case Mark.FAULT:
                    return Answer(steps, GPU)
                case Mark.TOO_LONG:
                    return Answer(steps, LONG)
                case _:
                    steps.append(piece)
        return Answer(steps)

    def rejection(self, kind: type[UpstreamError], message: str, retry_after: float | None = None) -> Answer:
        """Scripts the rejection that maps to the error `kind`."""
        code, reason = _REFUSALS[kind]
        return Answer([], Refusal(code, message, reason, retry_after))

    def silence(self) -> Answer:
        """Scripts a server that accepts the call and never responds."""
        return Answer([Stall()])

    def connection_closed(self) -> Answer:
        """Scripts a server that accepts the call and closes the connection."""
        return Answer([Cut()])


PARLEY = ParleyVendor()
