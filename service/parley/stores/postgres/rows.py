"""Pieces that the statements share."""

from collections.abc import Sequence
from typing import TypeAlias

from parley.core.messages.roles import is_system
from parley.v1.message_pb2 import Message

Now: TypeAlias = float | None
"""The time in Unix seconds; None is the database's own, which all replicas share."""


def now(place: int) -> str:
    """Returns SQL for the time of the statement, where the parameter with this number is a `Now`."""
    return f"coalesce(${place}::float8, extract(epoch FROM statement_timestamp())::float8)"


def columns(messages: Sequence[Message]) -> tuple[list[bytes], list[bool]]:
    """Returns messages as the table has them: serialized, and whether they are system messages."""
    return [message.SerializeToString() for message in messages], [is_system(message) for message in messages]
