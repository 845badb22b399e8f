"""The origin of a call: its account and its parameters, to which failures are attributed."""

from collections.abc import Iterable, Sequence
from itertools import islice

import orjson

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

_PLAIN = frozenset({"model", "messages", "stream", "session_id", "store", "metadata", "user", "safety_identifier"})
"""Fields of the request that are not parameters of the generation."""
_PLAIN_ROLES = frozenset({"system", "developer", "user", "assistant"})
_PLAIN_FIELDS = frozenset({"role", "content", "text"})
_MAX_MESSAGES = 32
"""The number of latest messages whose roles and parts are part of the origin."""
_MAX_PARTS = 32
"""The number of parts of a message that are looked at."""


class CallOrigin:
    """The account and the parameters of a call.

    Only the names of parameters count: a caller that sends a new `seed` with each call has one origin. The parameters
    are read from the request only when they are needed, which is after a failure.

    Args:
        account: The caller's account.
        request: The caller's request; None for one without parameters.
        messages: The conversation, including the messages stored in the session.
    """

    __slots__ = ("_messages", "_parameters", "_request", "account")

    def __init__(
        self,
        account: str = "",
        request: CreateChatCompletionRequest | None = None,
        messages: Sequence[Message] = (),
    ) -> None:
        self.account = account
        self._request = request
        self._messages = messages
        self._parameters: frozenset[str] | None = None

    @property
    def parameters(self) -> frozenset[str]:
        """The names of the request's parameters, with the roles and types of content that are not text."""
        if self._parameters is None:
            self._parameters = frozenset(self._names())
        return self._parameters

    @property
    def is_plain(self) -> bool:
        """Whether the call has no parameters: a model and a conversation of text."""
        return not self.parameters

    @property
    def key(self) -> tuple[str, frozenset[str]]:
        """The account and the parameters."""
        return self.account, self.parameters

    def _names(self) -> Iterable[str]:
        if self._request is None:
            return
        for field, _ in self._request.ListFields():
            if field.name in {"extra_body", "extra_body_json"}:
                yield from (f"extra_body.{name}" for name in self._extra_names())
            elif field.name not in _PLAIN and not self._is_usual(field.name):
                yield field.name
        for message in self._messages[-_MAX_MESSAGES:]:
            if message.role not in _PLAIN_ROLES:
                yield f"messages.role={message.role}"
            yield from (f"messages.{name}" for name in _unusual_parts(message))

    def _extra_names(self) -> Iterable[str]:
        request = self._request
        if request is None:
            return ()
        try:
            text = orjson.loads(request.extra_body_json) if request.extra_body_json else {}
        except orjson.JSONDecodeError:
            text = {}
        return {*request.extra_body.fields, *(text if isinstance(text, dict) else ())}

    def _is_usual(self, name: str) -> bool:
        """Returns whether the field only requests the usage of a stream, which Parley requests too."""
        return name == "stream_options" and not (self._request and self._request.stream_options.extra_json)


def _unusual_parts(message: Message) -> Iterable[str]:
    """Returns the types of parts that are not text, and the fields of the message beside its content."""
    yield from (field.name for field, _ in message.ListFields() if field.name not in _PLAIN_FIELDS)
    if message.content.HasField("list_value"):
        for part in islice(message.content.list_value.values, _MAX_PARTS):
            kind = part.struct_value.fields["type"].string_value if "type" in part.struct_value.fields else ""
            if kind != "text":
                yield f"content.{kind}"


PLAIN_ORIGIN = CallOrigin()
"""The origin of a call without an account and without parameters."""
