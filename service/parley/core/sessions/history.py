"""How much of a session's past is sent with a turn. Pure functions.

A store calls them inside the transaction that begins a turn, so that every store decides alike.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from parley.core.errors import InvalidRequest
from parley.core.messages.roles import is_system
from parley.core.ports import Window
from parley.v1.message_pb2 import Message

_RESULTS = frozenset({"tool", "function"})


class TurnSize(NamedTuple):
    """A completed turn as the window sees it.

    `starts_with_tool_result` says that it begins with the results of tool calls.

    `bytes` are those of its serialized messages. System messages count in none of the sizes.
    """

    number: int
    messages: int
    tokens: int
    starts_with_tool_result: bool
    bytes: int = 0


def starts_with_tool_result(messages: Sequence[Message]) -> bool:
    """Tells whether these messages begin with the result of a tool call, and mean nothing without the call."""
    spoken = next((message for message in messages if not is_system(message)), None)
    return spoken is not None and spoken.role in _RESULTS


def first_turn(sizes: Iterable[TurnSize], window: Window, *, continued: bool) -> int | None:
    """Returns the number of the oldest turn that still goes; None where none does.

    `sizes` are the completed turns, the newest first; no more of them is read than is needed. Turns that a tool
    exchange joins go together or not at all; those that the new turn itself continues (`continued`) go always.

    Raises:
        InvalidRequest: More would go than may be loaded.
    """
    first: int | None = None
    messages = size = loaded = 0
    bound = continued
    for turn in sizes:
        messages += turn.messages
        size += turn.tokens
        if not bound and not _fits(window, messages, size):
            break
        loaded += turn.bytes
        require_loadable(window, messages, loaded)
        if turn.starts_with_tool_result:
            continue
        first, bound = turn.number, False
    return first


def require_loadable(window: Window, messages: int, size: int) -> None:
    """Raises InvalidRequest where so many messages with so many bytes are more than a turn may load."""
    if window.load_messages is not None and messages > window.load_messages:
        bound = f"more than {window.load_messages} messages"
    elif window.load_bytes is not None and size > window.load_bytes:
        bound = f"more than {window.load_bytes} bytes"
    else:
        return
    remedy = "begin a new session, or have `history` set for the model: max_messages and max_tokens trim what is sent"
    raise InvalidRequest(
        f"The history of this session is too long for a turn: {bound}; {remedy}", param="chatSessionId"
    )


def _fits(window: Window, messages: int, size: int) -> bool:
    few = window.max_messages is None or messages <= window.max_messages
    return few and (window.max_tokens is None or size <= window.max_tokens)
