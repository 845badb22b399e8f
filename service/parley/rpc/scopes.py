"""The scope that each method requires of a key, and the methods that require none."""

from parley.core.ports import Scope
from parley.v1 import identity_pb2

PUBLIC = frozenset(identity_pb2.DESCRIPTOR.services_by_name["Identity"].methods_by_name)
"""The methods that need no credential."""

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
    "ExportSessions": "sessions:read",
    "UpdateSession": "sessions:write",
    "AddSessionMessages": "sessions:write",
    "ImportSessions": "sessions:write",
    "ForkSession": "sessions:write",
    "DeleteSession": "sessions:write",
    "ListModels": "models",
    "GetModel": "models",
    "GetUsageReport": None,
}
"""By the name of the method, for every method of `parley.v1`; None for a method that any key may call. A method that is
not here cannot be called."""
