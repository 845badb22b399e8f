"""A client of Parley: streams completions and raises one type of error."""

from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self

import grpc

from parley.v1.chat_completions_pb2 import ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub


class CallFailed(Exception):
    """A call failed.

    Args:
        message: The message of the service or of gRPC.
        reason: The service's ErrorReason without its prefix; None if the service was not reached.
    """

    def __init__(self, message: str, reason: str | None) -> None:
        super().__init__(message)
        self.reason = reason


class Client:
    """Calls the service at a gRPC address, without TLS, with an API key. The `with` block closes the channel."""

    def __init__(self, address: str, key: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = ChatCompletionsStub(self._channel)
        self._metadata = (("authorization", f"Bearer {key}"),)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()

    def stream(
        self, request: CreateChatCompletionRequest, on_start: Callable[[Callable[[], object]], None]
    ) -> Generator[ChatCompletionChunk, None, None]:
        """Yields the chunks of an answer. Closing the generator cancels the call.

        Args:
            request: What to send.
            on_start: Receives the function that cancels the call, which signal handlers may call, too.

        Raises:
            CallFailed: The call failed or was cancelled.
        """
        call: Any = self._stub.StreamChatCompletion(request, metadata=self._metadata)
        on_start(call.cancel)
        try:
            yield from call
        except grpc.RpcError as error:
            raise _failure(error) from error
        finally:
            call.cancel()


def _failure(error: Any) -> CallFailed:
    """Converts an error of gRPC, with the service's message and reason if it has them."""
    trailing = dict(error.trailing_metadata() or ())
    return CallFailed(error.details() or error.code().name, trailing.get("parley-error-reason"))
