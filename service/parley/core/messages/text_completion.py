"""The shape of most answers without streaming: one text that ended by itself, with its usage, and nothing else.

A protobuf message of such an answer takes as much time to build, read and convert to JSON as the rest of the answer's
way through the service. So it is built only where one is needed: for gRPC callers and for the store.
"""

from typing import Any, NamedTuple

from parley.core.messages.proto_json import dumps, from_message
from parley.core.messages.wire import tag, varint
from parley.v1.chat_completions_pb2 import ChatCompletion
from parley.v1.message_pb2 import Choice, Message, Usage

_TEMPLATE = ChatCompletion(
    choices=[Choice(index=0, finish_reason="stop", message=Message(role="assistant"))]
).SerializeToString()
"""An answer without its text. To parse it takes a tenth of the time that the constructors take."""
_MESSAGE = Message(role="assistant").SerializeToString()
"""The message of such an answer."""

_PROMPT, _PRODUCED, _TOTAL = (tag(Usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))


class TokenCounts(NamedTuple):
    """A usage that has these counts and nothing else, under the names of OpenAI's API."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TextCompletion:
    """An answer of the role `assistant` with the finish reason `stop`.

    Its attributes have the names and the meanings of the fields of `ChatCompletion`.

    Args:
        text: The content of its message.
        usage: Its usage, which must not be modified; None for none.

    Attributes:
        text: The content of its message.
        usage: Its usage; None for none.
        system_fingerprint: None if the backend sends none.
        service_tier: None if the backend sends none.
        session_id: None without a session.
    """

    __slots__ = (
        "_message",
        "created",
        "id",
        "model",
        "object",
        "service_tier",
        "session_id",
        "system_fingerprint",
        "text",
        "usage",
    )

    def __init__(self, text: str, usage: TokenCounts | Usage | None) -> None:
        self.text = text
        self.usage = usage
        self.session_id: str | None = None
        self.id = self.object = self.model = ""
        self.created = 0
        self.system_fingerprint: str | None = None
        self.service_tier: str | None = None
        self._message: ChatCompletion | None = None

    def message(self) -> ChatCompletion:
        """Returns the answer as a message: the same one at each call."""
        if self._message is None:
            self._message = self._build()
        return self._message

    def stored(self) -> tuple[Message, Usage | None]:
        """Returns what a session stores: the message of the only choice, and the usage."""
        message = Message.FromString(_MESSAGE)
        message.content.string_value = self.text
        return message, None if self.usage is None else usage_message(self.usage)

    def json(self, *, nulls: bool) -> bytes:
        """Returns the JSON of the message, as `proto_json.from_message` and `dumps` write it.

        Args:
            nulls: Whether to include the fields that OpenAI's API requires and that are not set.
        """
        data: dict[str, Any] = {} if self.session_id is None else {"chatSessionId": self.session_id}
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        choice: dict[str, Any] = {"index": 0, "message": message}
        if nulls:
            message["refusal"] = choice["logprobs"] = None
        choice["finish_reason"] = "stop"
        data["id"], data["object"], data["created"], data["model"] = self.id, self.object, self.created, self.model
        data["choices"] = [choice]
        used = self.usage
        if isinstance(used, TokenCounts):
            prompt, produced, total = used
            data["usage"] = {"prompt_tokens": prompt, "completion_tokens": produced, "total_tokens": total}
        elif used is not None:
            data["usage"] = from_message(used, nulls=nulls)
        if self.system_fingerprint is not None:
            data["system_fingerprint"] = self.system_fingerprint
        if self.service_tier is not None:
            data["service_tier"] = self.service_tier
        return dumps(data)

    def _build(self) -> ChatCompletion:
        message = ChatCompletion.FromString(_TEMPLATE)
        message.choices[0].message.content.string_value = self.text
        if self.usage is not None:
            write_usage(message.usage, self.usage)
        if self.id:
            message.id, message.object, message.created, message.model = self.id, self.object, self.created, self.model
        if self.session_id is not None:
            message.session_id = self.session_id
        if self.system_fingerprint is not None:
            message.system_fingerprint = self.system_fingerprint
        if self.service_tier is not None:
            message.service_tier = self.service_tier
        return message


def as_message(answer: ChatCompletion | TextCompletion) -> ChatCompletion:
    """Returns an answer as a message."""
    return answer.message() if isinstance(answer, TextCompletion) else answer


def usage_bytes(usage: Usage | TokenCounts) -> bytes:
    """Returns a usage, serialized."""
    if not isinstance(usage, TokenCounts):
        return usage.SerializeToString()
    prompt, produced, total = usage
    return b"".join((_PROMPT, varint(prompt), _PRODUCED, varint(produced), _TOTAL, varint(total)))


def usage_message(usage: Usage | TokenCounts) -> Usage:
    """Returns a copy of a usage as a message."""
    message = Usage()
    write_usage(message, usage)
    return message


def write_usage(to: Usage, usage: Usage | TokenCounts) -> None:
    """Writes a usage into an empty message."""
    if isinstance(usage, TokenCounts):
        to.prompt_tokens, to.completion_tokens, to.total_tokens = usage
    else:
        to.CopyFrom(usage)
