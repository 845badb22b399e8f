"""Forwards JSON text of callers (schemas, unknown fields) without changing it."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from google.protobuf.struct_pb2 import Value

from parley.backends.extra_body.policy import EVERYTHING, ExtraBodyPolicy
from parley.core.errors import InvalidRequest
from parley.core.messages import extra_fields
from parley.core.messages.proto_json import from_struct
from parley.core.messages.typed_fields import json_fields
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

FIELDS = frozenset(field.name for field in json_fields(CreateChatCompletionRequest.DESCRIPTOR)) | {"chatSessionId"}
"""The JSON names of all request fields."""

PARLEY_FIELDS = frozenset({"session_id", "store", "metadata", "stream", "stream_options", "continue_final_message"})
"""Request fields that are specific to Parley or that a backend translates; they are not sent under these names."""

_ANY_JSON = frozenset(
    field.name for field in CreateChatCompletionRequest.DESCRIPTOR.fields if field.message_type == Value.DESCRIPTOR
)
_SPACE = re.compile(r"[ \t\n\r]*")
_value_at = json.JSONDecoder(parse_int=lambda _: None, parse_float=lambda _: None).raw_decode


def exact(text: str, name: str) -> orjson.Fragment:
    """Returns the text of a JSON object as a fragment that is sent unchanged.

    The text is validated first: invalid text could close the enclosing object.

    Args:
        text: The JSON text.
        name: The request field that contains it, for the error.

    Raises:
        InvalidRequest: If the text is not a JSON object.
    """
    json_object(text, name)
    return orjson.Fragment(text)


def exact_schema(text: str, name: str) -> orjson.Fragment:
    """Returns the text of a JSON Schema, to be sent as it is; see `exact`. Raises InvalidRequest."""
    if not extra_fields.is_schema(text):
        raise _not_an_object(name)
    return orjson.Fragment(text)


def json_object(text: str, name: str) -> dict[str, Any]:
    """Parses the JSON object in the request field `name`. Raises InvalidRequest if it is not a JSON object."""
    data = extra_fields.read_object(text)
    if data is None:
        raise _not_an_object(name)
    return data


def _not_an_object(name: str) -> InvalidRequest:
    return InvalidRequest(f"`{name}` must be a JSON object", param=name)


def members(text: str, name: str) -> dict[str, orjson.Fragment]:
    """Splits the text of a JSON object into its members; each value keeps its exact text, including large numbers.

    Raises:
        InvalidRequest: If the text of the field `name` is not a JSON object, or nests too deeply.
    """
    if not json_object(text, name):
        return {}
    try:
        return {key: orjson.Fragment(value) for key, value in _members(text)}
    except RecursionError:
        raise InvalidRequest(f"`{name}` nests too deeply", param=name) from None


def _members(text: str) -> Iterator[tuple[str, str]]:
    """Yields the keys of a validated JSON object with the text of their values."""
    at = text.index("{")
    while text[at] != "}":
        key, at = _value_at(text, text.index('"', at))
        start = _skip_space(text, text.index(":", at) + 1)
        _, end = _value_at(text, start)
        yield key, text[start:end]
        at = _skip_space(text, end)


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def exact_texts(request: CreateChatCompletionRequest) -> dict[str, str]:
    """Returns the exact text of object-valued `Value` fields with numbers that a double cannot represent.

    The edge moves such a field to `extra_body_json`; the service has filled in the field itself from there.
    """
    names = _exact_names(request)
    if not names:
        return {}
    json_object(request.extra_body_json, "extra_body_json")
    return {name: text for name, text in _members(request.extra_body_json) if name in names}


def _exact_names(request: CreateChatCompletionRequest) -> set[str]:
    if not request.HasField("extra_body_json"):
        return set()
    return {name for name in _ANY_JSON if getattr(request, name).HasField("struct_value")}


def merge_extra(
    sent: dict[str, Any], call: UpstreamCall, policy: ExtraBodyPolicy = EVERYTHING, reserved: Iterable[str] = ()
) -> None:
    """Merges the request's `extra_body` into the body.

    `extra_body_json` takes precedence over the Struct and is sent unchanged. Fields of `exact_texts` are not merged.

    Args:
        sent: The body; modified in place.
        call: The call.
        policy: The parameters that the backend passes on.
        reserved: Further keys that are not allowed.

    Raises:
        InvalidRequest: If a key is another field of the request, or one of `reserved`.
        UnsupportedParameter: If the policy does not allow a parameter.
    """
    request = call.request
    if request.HasField("extra_body_json"):
        extra: dict[str, Any] = members(request.extra_body_json, "extra_body_json")
        for name in _exact_names(request):
            extra.pop(name, None)
    elif request.HasField("extra_body"):
        extra = from_struct(request.extra_body)
    else:
        return
    for key in sorted(extra.keys() & FIELDS):
        raise InvalidRequest(
            f"`extra_body.{key}` repeats a field of the request; set `{key}`", param=f"extra_body.{key}"
        )
    for key in sorted(extra.keys() & set(reserved)):
        raise InvalidRequest(f"`extra_body.{key}` is set already by the request's fields", param=f"extra_body.{key}")
    if extra:
        parsed = json_object(request.extra_body_json, "extra_body_json") if request.extra_body_json else extra
        for name in policy.check(call, {name: parsed[name] for name in extra}):
            del extra[name]
    if policy.member and extra:
        sent[policy.member] = extra
    else:
        sent.update(extra)
