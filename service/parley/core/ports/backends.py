"""The interface of a backend: one upstream API."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from google.protobuf.descriptor import FieldDescriptor

from parley.config import Metadata, Timeouts
from parley.core.ports.parameters import TargetParameters
from parley.core.ports.plain_text import StreamPart
from parley.core.ports.tracing import AttemptTrace
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest

HOPS = "x-parley-hops"
"""The header, or metadata, with the number of Parleys that a call has passed through."""
MAX_HOPS = 8
"""After so many Parleys a call is rejected: their backends lead to one another."""


class RequestShape(NamedTuple):
    """What a request has, read once.

    Attributes:
        fields: The fields that the request sets. Some may have been cleared since.
        texts: The role and the text of each message, if all are valid and have nothing else; None otherwise, and for a
            request without messages.
    """

    fields: frozenset[FieldDescriptor]
    texts: Sequence[tuple[str, str]] | None


@dataclass(slots=True)  # one an attempt; freezing would triple the time to make it
class UpstreamCall:
    """One request to one target.

    Attributes:
        request: The complete conversation, history and instructions included, with the model's defaults filled in. Its
            `model` is the model id of the caller. It may be the caller's own message, so that it must not be modified.
        model: The target's name for the model.
        timeouts: The model's timeouts.
        deadline: A time of the event loop's clock in seconds; None sets no limit beyond `timeouts`.
        has_prefill: The last message is a prefill: the answer continues it and does not repeat it.
        defaults: The names of the fields of `request` that the model's defaults set and the caller did not send.
        hops: The number of Parleys that the call has passed through, this one included.
        coalesce: Seconds within which a stream may collect what arrives after its first token; 0 for none.
        trace: The trace context of the attempt; None without tracing.
        shape: The shape of `request` if it has texts; None otherwise, or if that is not known.
        forwarded: The caller's headers, in lower case, that any backend may receive.
        parameters: What the target changes in the parameters of the JSON body; None for nothing.
        key: The index of the backend's key that the latest request was sent with.
        key_permit: The permit that the breaker of this key has given for it.
        key_failures: The number of requests that failed because of their key.
    """

    request: CreateChatCompletionRequest
    model: str
    timeouts: Timeouts
    deadline: float | None = None
    has_prefill: bool = False
    defaults: Sequence[str] = ()
    hops: int = 1
    coalesce: float = 0.0
    trace: AttemptTrace | None = None
    shape: RequestShape | None = None
    forwarded: Sequence[tuple[str, str]] = ()
    parameters: TargetParameters | None = None
    key: int = 0
    key_permit: int = 0
    key_failures: int = 0


class Backend(Protocol):
    """An upstream that generates completions.

    Cancelling the task of `complete` or closing the iterator of `stream` closes the connection to the upstream within a
    second.

    Raises:
        UpstreamError: The upstream failed; both `complete` and `stream` raise this and the following errors. After
            the first chunk with output, `stream` raises StreamBroken for every failure of the upstream except
            ContentPolicy.
        DeadlineExceeded: The call's `deadline` passed.
        UnsupportedParameter: This backend does not support a parameter of the request.
        InvalidRequest: An `extra_body` or a schema cannot be sent.
    """

    @property
    def supports_prefill(self) -> bool:
        """Whether a call may set `has_prefill`.

        If the upstream rejects the prefill nevertheless, the call raises UpstreamRejected.
        """
        ...

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Returns the complete answer. The core sets `id`, `created`, `model` and `session_id`."""
        ...

    def stream(self, call: UpstreamCall) -> AsyncGenerator[StreamPart, None]:
        """Yields the parts of the answer in order of arrival; deltas that arrive together may share a part.

        The caller may modify the parts. The last chunk with usage contains the total. The iterator ends without an
        error only after the upstream has marked the answer as complete.
        """
        ...

    async def check(self) -> None:
        """Checks the health of the upstream. Raises UpstreamError if it is unhealthy or unreachable.

        Called only for backends with `health` in their configuration.
        """
        ...

    async def close(self) -> None:
        """Closes every connection."""
        ...


@runtime_checkable
class ListsModels(Protocol):
    """A backend with a list of its models."""

    async def list_models(self) -> Mapping[str, Metadata]:
        """Returns what the backend says about each of its models, by its id. Raises UpstreamError."""
        ...
