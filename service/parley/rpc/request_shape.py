"""What a request has, read once: the fields that it sets, and whether its messages are plain texts.

To list the fields of a message takes longer than anything else that is done with a usual one. The search for other
forms, the validation and the backend use the same list.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from parley.core.ports import RequestShape
from parley.rpc.message_validation import TEXT_ROLES
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

MESSAGES = CreateChatCompletionRequest.DESCRIPTOR.fields_by_name["messages"]
"""The field with the messages."""
_FIELD: Callable[[tuple[FieldDescriptor, Any]], FieldDescriptor] = itemgetter(0)
_ROLE, _CONTENT = (Message.DESCRIPTOR.fields_by_name[name] for name in ("role", "content"))


def shape_of(request: CreateChatCompletionRequest) -> RequestShape:
    """Returns the shape of a request."""
    texts, fields = None, request.ListFields()
    for field, value in fields:
        if field is MESSAGES:
            texts = _texts(value)
    return RequestShape(frozenset(map(_FIELD, fields)), texts)


def _texts(messages: Iterable[Message]) -> Sequence[tuple[str, str]] | None:
    texts = []
    for message in messages:
        fields = message.ListFields()
        if len(fields) != 2:  # noqa: PLR2004 - role and content, which come first
            return None
        (first, role), (second, content) = fields
        if first is not _ROLE or second is not _CONTENT or role not in TEXT_ROLES:
            return None
        text = content.string_value
        if not text or "\0" in text:
            return None
        texts.append((role, text))
    return texts
