"""The scope that each method requires of a key."""

from parley.core.ports import Scope

SCOPES: dict[str, Scope | None] = {
    "CreateChatCompletion": "chat",
    "CreateChatCompletionJson": "chat",
    "StreamChatCompletion": "chat",
    "StreamChatCompletionEvents": "chat",
    "ListSessions": "sessions:read",
    "GetSession": "sessions:read",
    "ListSessionMessages": "sessions:read",
    "ListSessionMessagesJson": "sessions:read",
    "ExportSession": "sessions:read",
    "ExportSessionMessages": "sessions:read",
    "ForkSession": "sessions:write",
    "DeleteSession": "sessions:write",
    "ListModels": "models",
    "GetModel": "models",
    "GetUsageReport": None,
}
"""By the name of the method, for every method of `parley.v1`; None for a method that any key may call. A method that is
not here cannot be called."""
