"""Indexes the words of an account's turns before a search of it. Turns that no search needs cost nothing."""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

from parley.core.offload import offload, record_size
from parley.core.sessions import search
from parley.v1.message_pb2 import Message

BATCH_TURNS = 25
"""The turns that are read and indexed together."""
BATCH_BYTES = 1 << 20
"""The bytes of messages after which a batch has no further turn."""
INDEX_SECONDS = 1.0
"""The seconds during which one search starts new batches."""
SLACK_SECONDS = 60.0
"""The greatest difference between the times at which turns begin and at which readers see them."""
PIECE_BYTES = 256 * 1024
"""The bytes of words after which a transaction of SQLite indexes no further turn: other writes wait."""


class UnindexedTurn(NamedTuple):
    """A turn to index: its session, its number and its serialized messages."""

    session_id: str
    number: int
    messages: list[bytes]


class Unindexed(NamedTuple):
    """A batch of turns to index.

    Attributes:
        turns: The turns.
        until: The time up to which all turns of the account are indexed afterwards.
        is_last: Whether no others remain.
        progress: The stored time before; None for none.
    """

    turns: list[UnindexedTurn]
    until: float
    is_last: bool
    progress: float | None


class Document(NamedTuple):
    """The words of a turn."""

    session_id: str
    number: int
    words: list[str]


async def documents(account: str, turns: Sequence[UnindexedTurn]) -> list[Document]:
    """Returns the words of turns; finds those of large turns in a thread, so that other calls run meanwhile."""
    stored = [message for turn in turns for message in turn.messages]
    record_size(size=sum(map(len, stored)), messages=len(stored))
    return await offload(_documents, account, turns)


def _documents(account: str, turns: Sequence[UnindexedTurn]) -> list[Document]:
    return [
        Document(session_id, number, search.document(account, map(Message.FromString, stored)))
        for session_id, number, stored in turns
    ]


def pieces(found: Sequence[Document]) -> Iterator[list[Document]]:
    """Divides documents into pieces with up to `PIECE_BYTES` of words, or one document."""
    piece: list[Document] = []
    size = 0
    for document in found:
        more = sum(map(len, document.words))
        if piece and size + more > PIECE_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(document)
        size += more
    if piece:
        yield piece


async def index_all(batch: Callable[[], Awaitable[bool]]) -> bool:
    """Runs batches for up to `INDEX_SECONDS`.

    Args:
        batch: Indexes some turns. Returns whether none remain.

    Returns:
        Whether all turns are indexed.
    """
    ends = time.monotonic() + INDEX_SECONDS
    while not await batch():
        if time.monotonic() >= ends:
            return False
    return True
