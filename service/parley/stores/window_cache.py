"""The windows of the sessions that a worker has used last, so that their next turns need not read them.

An entry describes a session as the latest turn of this worker left it. A store uses it only if the session still has
the fence and the time of that turn: every turn, reaper and deletion of any worker increments the fence, and the time
tells apart turns with the same fence after a failover that lost some. Sessions are cached from their second turn on,
because many have only one.
"""

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from types import MappingProxyType
from typing import NamedTuple

from parley.core.errors import InvalidRequest
from parley.core.messages.roles import is_system
from parley.core.ports import Turn, TurnBegin
from parley.core.sessions import history, resent_history
from parley.core.sessions.history import TurnSize
from parley.stores.serialized import Serialized
from parley.v1.message_pb2 import Message

_MAX_BYTES = 4 << 20
_MAX_ENTRY_BYTES = 128 << 10
_ENTRY_BYTES, _SIZE_BYTES = 2000, 250  # the memory of an entry and of the size of a turn, besides the messages


class SeenSizes:
    """An iterator over the sizes of turns, newest first, that records how far it was read.

    Attributes:
        seen: The sizes that were read.
        reached_end: Whether all were read.
    """

    def __init__(self, sizes: Iterable[TurnSize]) -> None:
        self.seen: list[TurnSize] = []
        self.reached_end = False
        self._sizes = sizes

    def __iter__(self) -> Iterator[TurnSize]:
        for size in self._sizes:
            self.seen.append(size)
            yield size
        self.reached_end = True


class Past(NamedTuple):
    """What a session has before a turn, as far as it was read.

    Attributes:
        updated: When the latest turn began.
        stored_bytes: The bytes of all messages.
        system: The serialized system messages of completed turns.
        sizes: The sizes of the completed turns up to the first one outside the window, newest first.
        has_all_sizes: Whether `sizes` contains all completed turns.
        messages: The serialized messages, without system messages, of the turns within the window, by turn number.
    """

    updated: float = 0.0
    stored_bytes: int = 0
    system: Sequence[bytes] = ()
    sizes: Sequence[TurnSize] = ()
    has_all_sizes: bool = True
    messages: Mapping[int, Sequence[bytes]] = MappingProxyType({})

    def history(self) -> list[Message]:
        """Returns the messages that are sent with the turn."""
        return [Message.FromString(one) for one in chain(self.system, *self.messages.values())]

    def memory(self) -> int:
        """Returns the estimated bytes of memory."""
        return sum(map(len, chain(self.system, *self.messages.values()))) + _SIZE_BYTES * len(self.sizes)


class KnownTurn(NamedTuple):
    """A turn of a session that is not read.

    Attributes:
        fence: The fence that the session must have.
        new: The messages of the request that are new to the session.
        past: What the session has.
    """

    fence: int
    new: Sequence[Message]
    past: Past


class _Entry(NamedTuple):
    """The latest turn of a session; `added` is None once it has ended."""

    owner: tuple[str, str]
    fence: int
    past: Past
    added: Serialized | None = None

    def memory(self) -> int:
        return _ENTRY_BYTES + self.past.memory() + (self.added.bytes if self.added else 0)


class WindowCache:
    """The windows of the sessions that were used last, up to 4 MiB."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[_Entry, int]] = OrderedDict()  # with its memory
        self._memory = 0

    def find(self, begin: TurnBegin) -> KnownTurn | None:
        """Returns what a turn needs of its session; None if the session must be read, also to reject the turn."""
        entry, _ = self._entries.get(begin.session_id, (None, 0))
        if entry is None or entry.added is not None or entry.owner != (begin.account, begin.model):
            return None
        if not begin.append and resent_history.may_repeat(begin.messages):
            return None
        try:
            return _known_turn(begin, entry.fence, entry.past)
        except InvalidRequest:
            return None

    def begin(self, begin: TurnBegin, turn: Turn, past: Past, added: Serialized) -> None:
        """Records a turn that has begun, with the messages of its request."""
        self._put(begin.session_id, _Entry((begin.account, begin.model), turn.fence, past, added))

    def end(self, turn: Turn, answer: Serialized, *, completed: bool) -> None:
        """Records the end of a turn."""
        entry, memory = self._entries.get(turn.session_id, (None, 0))
        if entry is None or entry.fence != turn.fence or entry.added is None:
            return
        past = entry.past._replace(stored_bytes=entry.past.stored_bytes + entry.added.bytes + answer.bytes)
        if completed:
            past = _with_turn(past, turn, entry.added, answer)
        # The answer counts from the next turn on.
        self._entries[turn.session_id] = entry._replace(past=past, added=None), memory

    def discard(self, session_id: str) -> None:
        """Removes an entry."""
        _, memory = self._entries.pop(session_id, (None, 0))
        self._memory -= memory

    def _put(self, session_id: str, entry: _Entry) -> None:
        """Stores an entry, unless it is large, and evicts others."""
        self.discard(session_id)
        if (memory := entry.memory()) > _MAX_ENTRY_BYTES:
            return
        self._entries[session_id] = entry, memory
        self._memory += memory
        while self._memory > _MAX_BYTES:
            _, (_, evicted) = self._entries.popitem(last=False)
            self._memory -= evicted


def by_turn(sizes: Sequence[TurnSize], first: int | None, messages: Sequence[bytes]) -> dict[int, list[bytes]]:
    """Divides the messages of a window by their turns.

    Args:
        sizes: The sizes of the turns, newest first.
        first: The number of the oldest turn within the window; None for none.
        messages: The messages of the window without system messages, oldest first.
    """
    rest = iter(messages)
    turns = [size for size in reversed(sizes) if first is not None and size.number >= first]
    return {size.number: list(islice(rest, size.messages)) for size in turns}


def _known_turn(begin: TurnBegin, fence: int, past: Past) -> KnownTurn | None:
    """Returns a turn after a known past; None if its window includes more. Raises InvalidRequest."""
    history.require_loadable(begin.window, len(past.system), sum(map(len, past.system)))
    new = _new(begin.messages, past.system)
    sizes = SeenSizes(past.sizes)
    first = history.first_turn(sizes, begin.window, continued=history.starts_with_tool_result(new))
    if (sizes.reached_end and not past.has_all_sizes) or (first is not None and first not in past.messages):
        return None
    within = {number: past.messages[number] for number in past.messages if first is not None and number >= first}
    return KnownTurn(fence, new, past._replace(sizes=sizes.seen, has_all_sizes=sizes.reached_end, messages=within))


def _with_turn(past: Past, turn: Turn, added: Serialized, answer: Serialized) -> Past:
    """Adds a completed turn."""
    rows = [*added.rows, *answer.rows]
    count, tokens, size_bytes = map(operator.add, added.size, answer.size)
    newest = TurnSize(turn.number, count, tokens, history.starts_with_tool_result(turn.messages), size_bytes)
    return past._replace(
        system=[*past.system, *(message for message, system in rows if system)],
        sizes=[newest, *past.sizes],
        messages={**past.messages, turn.number: [message for message, system in rows if not system]},
    )


def _new(sent: Sequence[Message], system: Sequence[bytes]) -> list[Message]:
    if not system or not sent or not is_system(sent[0]):
        return list(sent)
    return list(resent_history.without_known_system([Message.FromString(one) for one in system], sent))
