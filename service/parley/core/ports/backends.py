"""What the core needs of an upstream that answers."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from parley.config import Timeouts
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """One request to one target.

    `request` holds the whole conversation, history and instructions included, with the model's defaults filled in; its
    `model` is the caller's. `model` is the target's own name for it. `deadline` is a time of the event loop's clock in
    seconds, or None: the caller sets no bound beyond `timeouts`. `is_continuation` says that the conversation's last
    message is the beginning of the answer: what is answered goes on from there and does not repeat it. `defaults` are
    the names of the fields of `request` that are the model's defaults, which the caller has not sent.
    """

    request: CreateChatCompletionRequest
    model: str
    timeouts: Timeouts
    deadline: float | None = None
    is_continuation: bool = False
    defaults: Sequence[str] = ()


class Backend(Protocol):
    """An upstream that answers conversations.

    Both ways raise `UpstreamError`s, DeadlineExceeded past the call's `deadline`, `UnsupportedParameter` for what this
    backend cannot honour, and InvalidRequest for an `extra_body` or a schema that cannot be sent. Cancelling the task,
    or closing the iterator, closes the connection to the upstream within a second.
    """

    @property
    def can_continue(self) -> bool:
        """Whether a call may have `is_continuation`.

        An upstream that refuses it all the same raises UpstreamRejected.
        """
        ...

    async def complete(self, call: UpstreamCall) -> ChatCompletion:
        """Answers whole. `id`, `created`, `model`, `session_id` are the core's to set."""
        ...

    def stream(self, call: UpstreamCall) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Answers in chunks as they come, which are the caller's to change; what arrived together may be one chunk.

        The last chunk with usage has the whole of it. Ends normally only after the upstream said that the answer is
        whole.
        """
        ...

    async def check(self) -> None:
        """Returns if the upstream says that it is well; raises UpstreamError if it does not, or is not there.

        Asked only of backends whose configuration has `health`.
        """
        ...

    async def close(self) -> None:
        """Closes every connection."""
        ...
