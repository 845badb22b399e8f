"""JSON text of callers: schemas and unknown fields, which are sent exactly as they came."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from google.protobuf.struct_pb2 import Value

from parley.core.errors import InvalidRequest
from parley.core.messages import extra_fields
from parley.core.messages.proto_json import from_struct
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

FIELDS = frozenset(field.name for field in CreateChatCompletionRequest.DESCRIPTOR.fields) | {"chatSessionId"}
"""The names that a request's fields have in JSON."""

PARLEY_FIELDS = frozenset({"session_id", "store", "metadata", "stream", "stream_options", "continue_final_message"})
"""Fields of a request that are Parley's own, or that a backend says in its vendor's way: no vendor is sent them."""

_ANY_JSON = frozenset(
    field.name for field in CreateChatCompletionRequest.DESCRIPTOR.fields if field.message_type == Value.DESCRIPTOR
)
_SPACE = re.compile(r"[ \t\n\r]*")
_value_at = json.JSONDecoder(parse_int=lambda _: None, parse_float=lambda _: None).raw_decode


def exact(text: str, name: str) -> orjson.Fragment:
    """Returns the text of a JSON object, to be sent as it is. Raises InvalidRequest where it is none.

    Checked first: it must not be able to end the object around it.
    """
    json_object(text, name)
    return orjson.Fragment(text)


def exact_schema(text: str, name: str) -> orjson.Fragment:
    """Returns the text of a JSON Schema, to be sent as it is; see `exact`. Raises InvalidRequest."""
    if not extra_fields.is_schema(text):
        raise _not_an_object(name)
    return orjson.Fragment(text)


def json_object(text: str, name: str) -> dict[str, Any]:
    """Reads the text of a JSON object, the field `name` of a request. Raises InvalidRequest where it is none."""
    data = extra_fields.read_object(text)
    if data is None:
        raise _not_an_object(name)
    return data


def _not_an_object(name: str) -> InvalidRequest:
    return InvalidRequest(f"`{name}` must be a JSON object", param=name)


def members(text: str, name: str) -> dict[str, orjson.Fragment]:
    """Splits the text of a JSON object into its members; each value keeps its exact text, numbers of any size included.

    Raises InvalidRequest where the text of the field `name` is no JSON object.
    """
    if not json_object(text, name):
        return {}
    try:
        return {key: orjson.Fragment(value) for key, value in _members(text)}
    except RecursionError:
        raise InvalidRequest(f"`{name}` nests too deeply", param=name) from None


def _members(text: str) -> Iterator[tuple[str, str]]:
    """Yields the keys of an object that was found to be valid, with the text of their values."""
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
    """Returns the text of every field that is an object of any JSON and has numbers that a double may not hold.

    The edge puts such a field into `extra_body_json`; the service has filled in the field from there.
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


def merge_extra(sent: dict[str, Any], request: CreateChatCompletionRequest, reserved: Iterable[str] = ()) -> None:
    """Merges the request's `extra_body` into the body; text wins over the Struct, and is sent exactly as it is.

    Fields of `exact_texts` are not merged here. Raises InvalidRequest for a key that is another field of the request,
    or one of `reserved`.
    """
    extra: dict[str, Any] = {}
    if request.HasField("extra_body_json"):
        extra = members(request.extra_body_json, "extra_body_json")
        for name in _exact_names(request):
            extra.pop(name, None)
    elif request.HasField("extra_body"):
        extra = from_struct(request.extra_body)
    for key in sorted(extra.keys() & FIELDS):
        raise InvalidRequest(
            f"`extra_body.{key}` repeats a field of the request; set `{key}`", param=f"extra_body.{key}"
        )
    for key in sorted(extra.keys() & set(reserved)):
        raise InvalidRequest(f"`extra_body.{key}` is set already by the request's fields", param=f"extra_body.{key}")
    sent.update(extra)
