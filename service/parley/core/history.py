"""Which of a request's messages are new to its session, and how much of the past goes with them. Pure functions.

A store calls them inside the transaction that begins a turn, so that every store decides alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.struct_pb2 import Value

from parley.core.errors import InvalidRequest
from parley.core.plain import from_message
from parley.v1.message_pb2 import Message, ToolCall

BYTES_A_TOKEN = 4
"""Of text: a rule of thumb, until the backend tells."""
_TOKENS_A_MESSAGE = 4
_WEIGHT_OF_A_MEDIUM = 1000 * BYTES_A_TOKEN  # an image, a sound or a file: its own bytes say little about what it costs
_MEDIA = frozenset({"image_url", "input_audio", "file"})
_SYSTEM = frozenset({"system", "developer"})
_RESULTS = frozenset({"tool", "function"})


@dataclass(frozen=True, slots=True)
class Window:
    """How much of a session's past goes with a turn, in messages and in estimated tokens; None is no bound.

    System messages always go, and count for nothing here.
    """

    max_messages: int | None = None
    max_tokens: int | None = None


class TurnSize(NamedTuple):
    """A completed turn as the window sees it. `continues` says that it begins with the results of tool calls."""

    number: int
    messages: int
    tokens: int
    continues: bool


def is_system(message: Message) -> bool:
    """Tells whether this is a system or developer message, which is never trimmed."""
    return message.role in _SYSTEM


def continues(messages: Sequence[Message]) -> bool:
    """Tells whether these messages begin with the result of a tool call, and mean nothing without the call."""
    said = next((message for message in messages if not is_system(message)), None)
    return said is not None and said.role in _RESULTS


def tokens(message: Message) -> int:
    """Estimates what a message costs a model: a token for four bytes of text, a thousand for an image or a sound."""
    said = [message.reasoning_content, message.refusal, message.function_call.name, message.function_call.arguments]
    for call in message.tool_calls:
        said += (call.function.name, call.function.arguments, call.custom.name, call.custom.input)
    size = weight(message.content) + len("".join(said).encode())
    return _TOKENS_A_MESSAGE + size // BYTES_A_TOKEN


def weight(content: Value) -> int:
    """Estimates a content in bytes of text: an image, a sound or a file weighs as much as a thousand tokens of it."""
    if not content.HasField("list_value"):
        return len(content.string_value.encode())
    size = 0
    for part in content.list_value.values:
        fields = part.struct_value.fields
        size += len(fields["text"].string_value.encode()) if "text" in fields else 0
        size += _WEIGHT_OF_A_MEDIUM * any(kind in fields for kind in _MEDIA)
    return size


def first_turn(sizes: Iterable[TurnSize], window: Window, *, continued: bool) -> int | None:
    """Returns the number of the oldest turn that still goes; None where none does.

    `sizes` are the completed turns, the newest first; no more of them is read than is needed. Turns that a tool
    exchange joins go together or not at all; those that the new turn itself continues (`continued`) go always.
    """
    first: int | None = None
    messages = size = 0
    bound = continued
    for turn in sizes:
        messages += turn.messages
        size += turn.tokens
        if not bound and not _fits(window, messages, size):
            break
        if turn.continues:
            continue
        first, bound = turn.number, False
    return first


def new_messages(stored: Sequence[Message], sent: Sequence[Message]) -> Sequence[Message]:
    """Returns what of `sent` the session does not have yet, where `sent` may repeat all that is `stored`.

    System messages may have changed since, as those do that tell the date: the other messages tell whether it repeats
    them. Raises InvalidRequest where it repeats all and adds nothing.
    """
    if len(stored) <= len(sent) and all(map(same, stored, sent)):
        end, changed = len(stored), list[Message]()
    else:
        end = _end_of_repeated([message for message in stored if not is_system(message)], sent)
        changed = _unknown(list(filter(is_system, stored)), filter(is_system, sent[:end]))
    if end == 0:
        return sent
    new = [*changed, *sent[end:]]
    if not new:
        message = "`messages` only repeats what the session has already; send a new message"
        raise InvalidRequest(message, param="messages")
    return new


def without_known(standing: Sequence[Message], sent: Sequence[Message]) -> Sequence[Message]:
    """Leaves out those of the leading system messages that the session has already, unless nothing else is left."""
    leading = next((place for place, message in enumerate(sent) if not is_system(message)), len(sent))
    return [*_unknown(standing, sent[:leading]), *sent[leading:]] or sent


def same(one: Message, other: Message) -> bool:
    """Tells whether two messages say the same, however a client has written down what it once received."""
    return _said(one) == _said(other)


def _end_of_repeated(said: Sequence[Message], sent: Sequence[Message]) -> int:
    """Returns where `sent` goes on after all that was said, whatever system messages are in between; 0 for nowhere."""
    places = [place for place, message in enumerate(sent) if not is_system(message)][: len(said)]
    repeated = (sent[place] for place in places)
    return places[-1] + 1 if said and len(places) == len(said) and all(map(same, said, repeated)) else 0


def _unknown(known: Sequence[Message], messages: Iterable[Message]) -> list[Message]:
    return [message for message in messages if not any(same(message, one) for one in known)]


def _fits(window: Window, messages: int, size: int) -> bool:
    few = window.max_messages is None or messages <= window.max_messages
    return few and (window.max_tokens is None or size <= window.max_tokens)


def _said(message: Message) -> tuple[object, ...]:
    return (
        message.role,
        message.name,
        _content(message),
        message.refusal,
        message.tool_call_id,
        [_call(call) for call in message.tool_calls],
        (message.function_call.name, message.function_call.arguments),
        message.audio.id,
    )


def _content(message: Message) -> object:
    """Returns the content with text alike whether it came as a string, as one part, or as nothing at all."""
    content = message.content
    if content.HasField("string_value"):
        return content.string_value
    if not content.HasField("list_value"):
        return ""
    parts = content.list_value.values
    if not parts:
        return ""
    if len(parts) == 1 and set(parts[0].struct_value.fields) == {"type", "text"}:
        return parts[0].struct_value.fields["text"].string_value
    return from_message(content)


def _call(call: ToolCall) -> tuple[str, ...]:
    return (call.id, call.function.name, call.function.arguments, call.custom.name, call.custom.input)
