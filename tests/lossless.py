"""JSON with members that nobody knows, put into every object of a request and of an answer, and read back exactly.

Numbers are decimals: what `read` makes of two texts is equal only where every digit is.
"""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from parley.core.plain import from_message


def examples(most: int) -> settings:
    """Returns the settings of a test that calls servers. A failing example stays as it is: shrinking takes minutes."""
    return settings(
        max_examples=most,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def read(text: str | bytes) -> Any:
    """Reads JSON, numbers as decimals."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def write(data: Any) -> str:
    """Writes JSON, decimals with all of their digits."""
    if isinstance(data, Decimal):
        return str(data)
    if isinstance(data, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{write(value)}" for key, value in data.items()) + "}"
    if isinstance(data, list):
        return "[" + ",".join(map(write, data)) + "]"
    return json.dumps(data, ensure_ascii=False)


_SIGN = st.sampled_from(["", "-"])
_DIGITS = st.text("0123456789", min_size=1, max_size=40)
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.builds(lambda sign, digits: f"{sign}0.{digits}", _SIGN, _DIGITS),
    st.builds(lambda sign, digits: f"{sign}{int(digits)}e-7", _SIGN, _DIGITS),
    st.sampled_from(["-0", "1.0", "1E+2", "18446744073709551615", "9007199254740993"]),
).map(Decimal)
"""Numbers that a double cannot hold, and some that it can."""

VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["cache_control", "extra_content", "extra", "extra_json", "Größe 📏", 'a"b\\c', "", "_", "x.y", "reasoning_details"]
)
MEMBERS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=3)


@st.composite
def with_members(draw: st.DrawFn, template: Any, is_open: Callable[[tuple[str, ...]], bool]) -> Any:
    """Draws the template with members that nobody knows in each of its open objects, in any order.

    `is_open` tells by the names on the way to an object whether it may have them.
    """
    return _with_members(draw, template, is_open, ())


def _with_members(draw: st.DrawFn, data: Any, is_open: Callable[[tuple[str, ...]], bool], path: tuple[str, ...]) -> Any:
    if isinstance(data, list):
        return [_with_members(draw, item, is_open, path) for item in data]
    if not isinstance(data, dict):
        return Decimal(data) if isinstance(data, int | float) and not isinstance(data, bool) else data
    made = {name: _with_members(draw, value, is_open, (*path, name)) for name, value in data.items()}
    if not is_open(path):
        return made
    more = {name: value for name, value in draw(MEMBERS).items() if name not in made}
    return dict(draw(st.permutations([*made.items(), *more.items()])))


def of_message(message: Message) -> Any:
    """Returns what a message of the service's inside stands for, with what its fields of exact text say."""
    if isinstance(message, Struct | Value | ListValue):
        return read(json.dumps(from_message(message)))
    made: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for field, value in message.ListFields():
        name = field.json_name
        if name in ("extra_json", "extra_body_json"):
            texts |= read(value)
        elif name.endswith("_json"):
            texts[name.removesuffix("_json")] = read(value)
        else:
            made[name] = _of_field(field, value)
    return made | texts


def _of_field(field: Any, value: Any) -> Any:
    if field.message_type is None:
        return read(json.dumps(list(value) if field.is_repeated else value))
    if field.message_type.GetOptions().map_entry:
        return read(json.dumps(dict(value)))
    return [of_message(item) for item in value] if field.is_repeated else of_message(value)


_SCHEMA = {"type": "object", "properties": {"z": {"type": "integer"}, "a": {"type": "string"}}}
_PARTS = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}]
REQUEST: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "name": "Ann", "content": _PARTS},
        {
            "role": "assistant",
            "content": None,
            "refusal": "no",
            "reasoning_content": "hm",
            "annotations": [{"type": "url_citation", "url_citation": {"url": "u"}}],
            "audio": {"id": "a1"},
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
                {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "2"}]},
    ],
    "stream_options": {"include_usage": True},
    "logit_bias": {"50256": -100},
    "metadata": {"a": "b"},
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": _SCHEMA}},
        {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
    "prediction": {"type": "content", "content": [{"type": "text", "text": "p"}]},
    "modalities": ["text", "audio"],
    "audio": {"voice": {"id": "v"}, "format": "wav"},
    "web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "Bern"}}},
    "prompt_cache_options": {"mode": "explicit"},
    "moderation": {"model": "o", "policy": {"input": {"mode": "score"}, "output": {"mode": "block"}}},
    "functions": [{"name": "h", "parameters": {"type": "object"}}],
}  # fmt: skip
"""A request with every kind of object in it."""


def request_is_open(path: tuple[str, ...]) -> bool:
    """Tells whether an object of a request may have members that nobody knows: all but maps of plain values."""
    return path not in (("logit_bias",), ("metadata",))


ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hi",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}
"""An answer with every kind of object in it that a conversation goes on from."""

OURS = frozenset({"id", "object", "created", "model", "chatSessionId"})
"""What Parley sets in an answer by itself."""


def is_in(part: Any, whole: Any) -> bool:
    """Tells whether all that the part has is in the whole, which may have more members in its objects."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            name in whole and is_in(value, whole[name]) for name, value in part.items()
        )
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(is_in, part, whole))
    return bool(part == whole) and type(part) is type(whole)
