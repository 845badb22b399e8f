"""Converts requests to the JSON body of OpenAI's chat completions.

The protos follow OpenAI's API: each field that is set is sent under its own name. Unknown fields (`extra_json`) keep
their exact text. Parley's own fields are not sent: the session, `store` and `metadata` (OpenAI accepts metadata only
for stored completions).
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from parley.backends.extra_body.policy import EVERYTHING, ExtraBodyPolicy
from parley.backends.json_fidelity import PARLEY_FIELDS, exact_schema, exact_texts, members, merge_extra
from parley.core.errors import InvalidRequest
from parley.core.messages.proto_json import from_struct, from_value, number
from parley.core.messages.typed_fields import json_fields
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest, StreamOptions

NOT_SENT = PARLEY_FIELDS | {"extra_body", "extra_body_json"}
"""Fields of the request that are not sent under their own name."""

_Convert = Callable[[Any], Any]
_EXTRA_FIELDS = frozenset({"extra", "extra_json"})
_CONTENT_SUBSTITUTES = frozenset({"tool_calls", "function_call", "audio", "refusal"})
_JSON_TYPES = frozenset({"google.protobuf.Value", "google.protobuf.Struct"})


def body(call: UpstreamCall, *, stream: bool, policy: ExtraBodyPolicy = EVERYTHING) -> dict[str, Any]:
    """Returns the body, to be serialized by `extra_fields.dump_bytes`.

    Args:
        call: The call.
        stream: Whether the answer is streamed.
        policy: The vendor parameters that the backend passes on.

    Raises:
        InvalidRequest: If `extra_body`, `extra_json` or a schema is invalid.
        UnsupportedParameter: If the policy does not allow a vendor parameter.
    """
    request = call.request
    if call.shape is None:
        sent: dict[str, Any] = _request(request)
    else:
        texts = call.shape.texts or ()
        sent = {"model": "", "messages": [{"role": role, "content": text} for role, text in texts]}
        if not call.shape.fields <= _NO_PARAMETERS:
            sent |= _parameters(request)
    sent["model"] = call.model or request.model
    if stream:
        sent["stream"] = True
        # The object for a field that is not set would be kept as long as the request.
        more = _stream_options(request.stream_options) if request.HasField("stream_options") else {}
        sent["stream_options"] = more | {"include_usage": True}
    has_exact_texts = request.HasField("extra_body_json")
    if has_exact_texts:
        sent |= {name: orjson.Fragment(text) for name, text in exact_texts(request).items()}
    if has_exact_texts or request.HasField("extra_body"):
        merge_extra(sent, call, policy)
    return sent


def _converter(kind: Descriptor, omit: Iterable[str] = ()) -> _Convert:
    """Creates a function that converts messages of this type to JSON data, without the fields in `omit`."""
    known = json_fields(kind)
    # By number: the name of a field is a new string each time.
    fields = {field.number: (field.name, _field(field)) for field in known if field.name not in {*omit, *_EXTRA_FIELDS}}
    extra_json = next((field.number for field in kind.fields if field.name == "extra_json"), None)
    typed = frozenset(field.name for field in known if not _holds_json(field)) - _EXTRA_FIELDS
    unsent = frozenset(omit) - typed

    def convert(message: Message) -> dict[str, Any]:
        data: dict[str, Any] = {}
        extra = ""
        for field, value in message.ListFields():
            number = field.number
            if (found := fields.get(number)) is not None:
                name, convert_field = found
                data[name] = value if convert_field is None else convert_field(value)
            elif number == extra_json:
                extra = value
        if extra:
            _add_extra(data, extra, typed, unsent)
        return data

    return convert


def _holds_json(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name in _JSON_TYPES


def _add_extra(data: dict[str, Any], text: str, typed: frozenset[str], unsent: frozenset[str]) -> None:
    """Merges unknown fields into an object.

    Args:
        data: The object; modified in place.
        text: JSON text of the unknown fields. It may repeat a field of any JSON type with its exact text.
        typed: Fields of the message that must not be repeated.
        unsent: Fields that are dropped.

    Raises:
        InvalidRequest: If the text is not a JSON object, or repeats one of `typed`.
    """
    extra = members(text, "extra_json")
    for key in sorted(extra.keys() & typed):
        raise InvalidRequest(f"`extra_json.{key}` repeats a field of its message; set `{key}`", param="extra_json")
    data |= {name: value for name, value in extra.items() if name not in unsent}


def _field(field: FieldDescriptor) -> _Convert | None:
    """Creates a function that converts a field's value to JSON data; None if no conversion is needed."""
    kind = field.message_type
    if kind is None:
        return list if field.is_repeated else None
    if kind.GetOptions().map_entry:
        return _map
    convert = _CONVERTERS.get(kind.full_name) or _converter(kind)
    return partial(_each, convert) if field.is_repeated else convert


def _each(convert: _Convert, values: Any) -> list[Any]:
    return list(map(convert, values))


def _map(values: Any) -> dict[str, Any]:
    return {key: number(value) for key, value in values.items()}


def _with_schema(kind: str, struct: str, text: str) -> tuple[str, _Convert]:
    """Creates the converter of a message whose JSON Schema is a Struct or JSON text.

    The text takes precedence, because it keeps the order of keys.

    Args:
        kind: Full name of the message type.
        struct: Name of its Struct field.
        text: Name of its text field.
    """
    descriptor = CreateChatCompletionRequest.DESCRIPTOR.file.pool.FindMessageTypeByName(kind)
    convert_fields = _converter(descriptor, {text})
    order = [field.name for field in json_fields(descriptor) if field.name not in _EXTRA_FIELDS]

    def convert(message: Message) -> dict[str, Any]:
        data: dict[str, Any] = convert_fields(message)
        if message.HasField(text):
            data[struct] = exact_schema(getattr(message, text), text)
        return {name: data[name] for name in order if name in data} | data

    return kind, convert


def _message(message: Any) -> dict[str, Any]:
    """Adds an empty content to an assistant message that has neither content nor a permitted substitute.

    OpenAI's API requires `content` unless the message has tool calls, audio or a refusal. An answer that was truncated
    during its reasoning has none of these.
    """
    data: dict[str, Any] = _convert_message(message)
    if data.get("content") is None and data.get("role") == "assistant" and data.keys().isdisjoint(_CONTENT_SUBSTITUTES):
        data = {"role": "assistant", "content": ""} | data | {"content": ""}
    return data


def _tool_call(message: Any) -> dict[str, Any]:
    data: dict[str, Any] = _convert_tool_call(message)
    data.setdefault("type", "function")
    return data


def _function_call(message: Any) -> dict[str, Any]:
    """Adds an empty object if a call has no arguments: the field is required, and servers parse it as JSON."""
    data: dict[str, Any] = _convert_function_call(message)
    data.setdefault("arguments", "{}")
    return data


_CONVERTERS: dict[str, _Convert] = {
    "google.protobuf.Value": from_value,
    "google.protobuf.Struct": from_struct,
    "parley.v1.ToolCall": _tool_call,
}
_CONVERTERS |= dict(
    [
        _with_schema("parley.v1.FunctionDefinition", "parameters", "parameters_json"),
        _with_schema("parley.v1.JsonSchema", "schema", "schema_json"),
    ]
)
_find_type = CreateChatCompletionRequest.DESCRIPTOR.file.pool.FindMessageTypeByName
# A request refers to earlier audio by its id only.
_CONVERTERS["parley.v1.Audio"] = _converter(_find_type("parley.v1.Audio"), {"expires_at", "data", "transcript"})
_convert_function_call = _converter(_find_type("parley.v1.FunctionCall"))
_CONVERTERS["parley.v1.FunctionCall"] = _function_call
_convert_tool_call = _converter(_find_type("parley.v1.ToolCall"))
# `annotations` is not a field of request messages.
_convert_message = _converter(_find_type("parley.v1.Message"), {"annotations"})
_CONVERTERS["parley.v1.Message"] = _message
_stream_options = _converter(StreamOptions.DESCRIPTOR)
_request = _converter(CreateChatCompletionRequest.DESCRIPTOR, NOT_SENT)
_parameters = _converter(CreateChatCompletionRequest.DESCRIPTOR, NOT_SENT | {"messages"})
_NO_PARAMETERS = {
    CreateChatCompletionRequest.DESCRIPTOR.fields_by_name[name] for name in {"model", "messages"} | PARLEY_FIELDS
}
