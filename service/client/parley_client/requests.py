"""Makes request messages of Python's own data, under the names of OpenAI's API."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, TypeAlias, TypeVar

from google.protobuf.message import Message as AnyMessage

from parley_client.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley_client.v1.usage_pb2 import GetUsageReportRequest

MessageInput: TypeAlias = Mapping[str, Any] | AnyMessage
"""A message: a dict as in OpenAI's API, or a `Message`."""
MessagesInput: TypeAlias = str | Sequence[MessageInput]
"""A conversation, or the text of one user message."""

M = TypeVar("M", bound=AnyMessage)
_STRUCT, _VALUE = "google.protobuf.Struct", "google.protobuf.Value"


def completion_request(
    messages: MessagesInput, parameters: Mapping[str, Any], session_id: str | None = None
) -> CreateChatCompletionRequest:
    """Returns the request for a completion.

    Args:
        messages: The conversation; in a session, its new messages.
        parameters: Other fields of the request. The value None omits a field. Unknown ones go into `extra_body`.
        session_id: The session to continue.

    Raises:
        TypeError: A value does not fit its field; the message names the field.
    """
    request = CreateChatCompletionRequest()
    fill(request, {"messages": conversation(messages), "session_id": session_id, **parameters})
    return request


def usage_request(
    since: date | str | None, until: date | str | None, by: Sequence[str], *, account: bool
) -> GetUsageReportRequest:
    """Returns the request for a report of usage; dates may be texts, as YYYY-MM-DD."""
    days = {name: str(day) for name, day in (("since", since), ("until", until)) if day is not None}
    return GetUsageReportRequest(**days, by=by, account=account or None)


def conversation(messages: MessagesInput) -> list[MessageInput]:
    """Returns a conversation as a list."""
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)


def fill(to: AnyMessage, data: Mapping[str, Any], path: str = "") -> None:
    """Sets the fields of a message.

    Fields that the message does not have are kept as JSON text, which the service sends to the backend unchanged. JSON
    objects are kept as text, too: their keys have an order, which a Struct would lose.

    Args:
        to: The message.
        data: The values by name; None omits a field.
        path: The path of the message, for errors.

    Raises:
        TypeError: A value does not fit its field.
    """
    fields = to.DESCRIPTOR.fields_by_name
    carrier = "extra_body" if "extra_body" in fields else "extra"
    unknown: dict[str, Any] = {}
    for name, value in data.items():
        field = fields.get(name)
        place = f"{path}.{name}" if path else name
        if value is None:
            continue
        if name == carrier and isinstance(value, Mapping):
            unknown |= value
        elif field is None:
            unknown[name] = value
        else:
            _set(to, field, value, place, unknown)
    if unknown and f"{carrier}_json" in fields:
        _add_members(to, f"{carrier}_json", _dumps(unknown, path or carrier))
    elif unknown:
        raise TypeError(f"`{path or to.DESCRIPTOR.name}` has no field `{next(iter(unknown))}`")


def _add_members(to: AnyMessage, name: str, text: str) -> None:
    """Adds the members of a JSON object to those that the caller has set as text."""
    known = getattr(to, name).strip()[1:-1].strip()
    setattr(to, name, f"{{{known},{text[1:]}" if known else text)


def _set_json(to: Any, field: Any, value: Any, unknown: dict[str, Any]) -> None:
    """Sets a field of any JSON: an object as text, in the field's own sibling or among the unknown fields."""
    fields = to.DESCRIPTOR.fields_by_name
    if isinstance(value, AnyMessage):
        _copy(getattr(to, field.name), value)
    elif isinstance(value, str):
        getattr(to, field.name).string_value = value
    elif f"{field.name}_json" in fields:
        setattr(to, f"{field.name}_json", _dumps(value, field.name))
    elif "extra_json" in fields:
        unknown[field.name] = value
    else:
        _set_value(getattr(to, field.name), value)


def _set_value(to: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        to.struct_value.update(value)
    elif isinstance(value, Sequence):
        to.list_value.extend(value)
    else:
        raise TypeError(f"{value!r} is neither text, a list nor an object")


def _set(to: Any, field: Any, value: Any, path: str, unknown: dict[str, Any]) -> None:
    kind = field.message_type
    try:
        if kind is not None and kind.full_name in (_STRUCT, _VALUE):
            _set_json(to, field, value, unknown)
        elif kind is None and not isinstance(value, list | tuple):
            setattr(to, field.name, value)
        elif kind is None:
            getattr(to, field.name).extend(value)
        elif kind.GetOptions().map_entry:
            getattr(to, field.name).update({str(key): item for key, item in value.items()})  # ids of tokens may be int
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                _set_message(getattr(to, field.name).add(), item, f"{path}[{index}]")
        else:
            getattr(to, field.name).SetInParent()
            _set_message(getattr(to, field.name), value, path)
    except (TypeError, ValueError, AttributeError) as error:
        raise (error if _names_field(error) else TypeError(f"`{path}`: {error}")) from None


def _names_field(error: Exception) -> bool:
    return isinstance(error, TypeError) and str(error).startswith("`")


def _set_message(to: AnyMessage, value: Any, path: str) -> None:
    if isinstance(value, AnyMessage):
        _copy(to, value)
    elif isinstance(value, Mapping):
        fill(to, value, path)
    else:
        raise TypeError(f"`{path}` is {value!r}; it must be a dict or a message")


def _copy(to: AnyMessage, value: AnyMessage) -> None:
    """Copies a message, also one of other stubs of the same type."""
    if to.DESCRIPTOR.name != value.DESCRIPTOR.name:
        raise TypeError(f"a {value.DESCRIPTOR.name} stands in place of a {to.DESCRIPTOR.name}")
    to.MergeFromString(value.SerializeToString())


def _dumps(value: Any, path: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{path}` cannot be written as JSON: {error}") from error
