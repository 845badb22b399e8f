"""Helpers that the statements share."""

from collections.abc import Sequence
from typing import TypeAlias

from parley.core.errors import SessionNotFound
from parley.core.messages.roles import is_system
from parley.v1.message_pb2 import Message

Now: TypeAlias = float | None
"""The time in Unix seconds; None for the database's clock, which all replicas share."""


def now(parameter: int) -> str:
    """Returns SQL for the time of the statement. `parameter` is the number of a parameter of type `Now`."""
    return f"coalesce(${parameter}::float8, extract(epoch FROM statement_timestamp())::float8)"


def columns(messages: Sequence[Message]) -> tuple[list[bytes], list[bool]]:
    """Returns the columns of messages: serialized, and whether they are system messages."""
    return [message.SerializeToString() for message in messages], [is_system(message) for message in messages]


def require_valid_id(session_id: str) -> None:
    """Raises SessionNotFound for an id with a NUL character, which PostgreSQL cannot store."""
    if "\0" in session_id:
        raise SessionNotFound(session_id)
