"""How much of a session's history is sent with a turn. Pure functions.

Each store calls them inside the transaction that begins a turn, so that all stores follow the same rules.
"""

from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

from parley.core.errors import InvalidRequest
from parley.core.messages.roles import is_system
from parley.core.ports import Window
from parley.v1.message_pb2 import Message

_RESULTS = frozenset({"tool", "function"})


class TurnSize(NamedTuple):
    """The size of a completed turn, without its system messages.

    Attributes:
        number: The number of the turn within the session.
        messages: The number of messages.
        tokens: The estimated tokens.
        starts_with_tool_result: Whether the first message is the result of a tool call.
        bytes: The bytes of the serialized messages.
    """

    number: int
    messages: int
    tokens: int
    starts_with_tool_result: bool
    bytes: int = 0


def starts_with_tool_result(messages: Sequence[Message]) -> bool:
    """Returns whether the first message that is not a system message is the result of a tool call.

    Such messages require the preceding turn, which contains the call.
    """
    for message in messages:
        if not is_system(message):
            return message.role in _RESULTS
    return False


def first_turn(sizes: Iterable[TurnSize], window: Window, *, continued: bool) -> int | None:
    """Returns the number of the oldest turn within the window; None if no turn is.

    Turns that share a tool-call exchange are included together or not at all.

    Args:
        sizes: The completed turns, newest first. Iteration stops at the first turn outside the window.
        window: The limits.
        continued: Whether the new turn starts with a tool result, so that the turns of that exchange are always
            included.

    Raises:
        InvalidRequest: The history exceeds what a turn may load.
    """
    first: int | None = None
    messages = size = loaded = 0
    bound = continued
    max_messages, max_tokens, load_messages, load_bytes = _limits(window)
    for turn in sizes:
        messages += turn.messages
        size += turn.tokens
        if not bound and (messages > max_messages or size > max_tokens):
            break
        loaded += turn.bytes
        if messages > load_messages or loaded > load_bytes:
            require_loadable(window, messages, loaded)
        if turn.starts_with_tool_result:
            continue
        first, bound = turn.number, False
    return first


def window_tokens(sizes: Iterable[TurnSize], window: Window) -> int:
    """Estimates the tokens of the turns within the window.

    Args:
        sizes: The completed turns, newest first. Iteration stops at the first turn outside the window.
        window: The limits.
    """
    messages = tokens = 0
    max_messages, max_tokens, _, _ = _limits(window)
    for turn in sizes:
        messages += turn.messages
        if messages > max_messages or tokens + turn.tokens > max_tokens:
            break
        tokens += turn.tokens
    return tokens


def require_loadable(window: Window, messages: int, size: int) -> None:
    """Raises InvalidRequest if the messages or their bytes exceed what a turn may load."""
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


def _limits(window: Window) -> list[float]:
    """Returns the limits of a window as numbers: a session may have many turns."""
    limits = (window.max_messages, window.max_tokens, window.load_messages, window.load_bytes)
    return [inf if limit is None else limit for limit in limits]
