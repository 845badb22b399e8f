"""Roles of messages."""

from parley.v1.message_pb2 import Message

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
"""All roles."""
_SYSTEM = frozenset({"system", "developer"})


def is_system(message: Message) -> bool:
    """Reports whether a message has the role system or developer; such messages are never trimmed."""
    return message.role in _SYSTEM
