"""JSON with unknown members in every object of a request and of an answer, with exact comparison.

Numbers are their text: two results of `read` are equal only if every digit is equal.
"""

import json
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st

from parley.core.messages.proto_json import from_message
from parley.core.messages.typed_fields import json_fields
from parley.v1 import chat_completions_pb2, message_pb2
from parley.v1.message_pb2 import ContentPart


class Number(str):
    """A number with its exact text."""

    __slots__ = ()


def examples(most: int, *, shrinks: bool = False) -> settings:
    """Returns the settings of a property. If it calls servers, failing examples are not shrunk, which is slow."""
    phases = [Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if shrinks else [])]
    return settings(
        max_examples=most,
        deadline=None,
        phases=phases,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def read(text: str | bytes) -> Any:
    """Parses JSON, numbers as their text."""
    return json.loads(text, parse_int=Number, parse_float=Number)


def write(data: Any) -> str:
    """Serializes JSON, numbers as their text; non-ASCII characters are escaped in one of several ways."""
    if isinstance(data, Number):
        return str(data)
    if isinstance(data, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{write(value)}" for key, value in data.items()) + "}"
    if isinstance(data, list):
        return "[" + ",".join(map(write, data)) + "]"
    return json.dumps(data, ensure_ascii=isinstance(data, str) and len(data) % 2 == 1)


_SIGN = st.sampled_from(["", "-"])
_DIGITS = st.text("0123456789", min_size=1, max_size=40)
_ODD_TEXT = [
    "",
    "\0",
    "\u2028\u2029",
    "\x7f",
    '"\\',
    "\ufeff",
    "\ufffd",
    "😀",
    "e\u0301",
    "\r\n\t\b",
    "<script>",
    "\U0010ffff",
]
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(_ODD_TEXT)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.builds(lambda sign, digits: f"{sign}0.{digits}", _SIGN, _DIGITS),
    st.builds(lambda sign, digits: f"{sign}{int(digits)}e-7", _SIGN, _DIGITS),
    st.sampled_from(
        ["-0", "0.0", "-0.0", "1.0", "1.50", "1E+2", "1e2", "1e0", "1e400", "-1E400", "1e-400", "9" * 400, "9" * 5000]
    ),
    st.sampled_from(["18446744073709551615", "18446744073709551616", "-9223372036854775809", "9007199254740993"]),
).map(Number)
"""Numbers that a double cannot hold, numbers that another text stands for, and plain ones."""
_DEEP = st.integers(1, 60).map(lambda levels: read("[" * levels + "]" * levels)) | st.integers(1, 60).map(
    lambda levels: read('{"":' * levels + "null" + "}" * levels)
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=4,
)
_NAMES_OF_VENDORS = ["cache_control", "extra_content", "reasoning_details", "$ref", "[0]"]
_NAMES_OF_OURS = ["extra", "extra_json", "parameters_json", "schema_json", "Role", "content "]
_NAMES_OF_TYPED = ["parts", "voice_id", "stop_sequences", "typed_tool_choice"]
_ODD_NAMES = ["", "_", "x.y", 'a"b\\c', "Größe 📏", "__proto__", "constructor", "\u2028", "\0"]
NAMES = st.sampled_from([*_NAMES_OF_VENDORS, *_NAMES_OF_OURS, *_NAMES_OF_TYPED, *_ODD_NAMES])
_MEMBER = st.integers(0, 15).flatmap(lambda choice: VALUES if choice else _DEEP)
MEMBERS = st.dictionaries(NAMES, _MEMBER, min_size=1, max_size=3)
_IsOpen = Callable[[tuple[str, ...]], bool]


@st.composite
def with_members(draw: st.DrawFn, template: Any, is_open: _IsOpen = lambda _: True) -> Any:
    """Generates the template with unknown members in each of its open objects, in any order.

    `is_open` decides by the names on the path to an object whether it may have them. Members are generated as a pool,
    from which each object takes some.
    """
    pool = draw(st.lists(MEMBERS, min_size=1, max_size=12))
    return _with_members(draw(st.randoms(use_true_random=True)), pool, template, is_open, ())


def _with_members(random: Random, pool: list[Any], data: Any, is_open: _IsOpen, path: tuple[str, ...]) -> Any:
    if isinstance(data, list):
        return [_with_members(random, pool, item, is_open, path) for item in data]
    if not isinstance(data, dict):
        return Number(data) if isinstance(data, int | float) and not isinstance(data, bool) else data
    made = {name: _with_members(random, pool, value, is_open, (*path, name)) for name, value in data.items()}
    if not is_open(path):
        return made
    more = {name: value for name, value in random.choice(pool).items() if not _is_known(name, made)}
    if "content" in path:
        more = {name: value for name, value in more.items() if "\0" not in name and not _has_nul(value)}
    members = [*made.items(), *more.items()]
    random.shuffle(members)
    return dict(members)


def _is_known(name: str, members: Iterable[str]) -> bool:
    """Returns whether an object has a field with this name, or one whose exact text has this name."""
    return name in members or name.removesuffix("_json") in members


def _has_nul(data: Any) -> bool:
    """Returns whether JSON contains the character U+0000, which is rejected in the content of a message."""
    return "\\u0000" in json.dumps(data)


def of_message(message: Message) -> Any:
    """Returns the JSON of a message, with the values of its fields of exact text."""
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


def to_message(data: dict[str, Any], message: Any, *, typed: bool = False) -> Any:
    """Sets a message of a request like a gRPC caller with exact JSON: values that a Value would round are text.

    With `typed`, text and content parts are set in their typed forms.
    """
    fields = {field.json_name: field for field in json_fields(message.DESCRIPTOR)}
    extra: dict[str, Any] = {}
    for name, value in data.items():
        if name not in fields or name in ("extra", "extra_json"):
            extra[name] = value
        elif f"{name}_json" in fields:
            setattr(message, f"{name}_json", write(value))
        elif typed and name == "content" and value is not None:
            _set_typed(message, value)
        elif value is not None or fields[name].message_type is Value.DESCRIPTOR:
            _set(message, fields[name], value, extra, typed=typed)
    if extra:
        setattr(message, "extra_json" if "extra_json" in fields else "extra_body_json", write(extra))
    return message


def _set_typed(message: Any, content: str | list[Any]) -> None:
    if isinstance(content, str):
        message.text = content
    else:
        message.parts.extend(map(_typed_part, content))


def _typed_part(part: dict[str, Any]) -> ContentPart:
    """Returns a text with its unknown members, or a part as JSON."""
    if part["type"] != "text":
        return ContentPart(json=write(part))
    unknown = {name: value for name, value in part.items() if name not in ("type", "text")}
    return ContentPart(text=part["text"], extra_json=write(unknown))


def _set(message: Any, field: Any, value: Any, extra: dict[str, Any], *, typed: bool) -> None:
    name, kind = field.name, field.message_type
    if kind is None:
        if field.is_repeated:
            getattr(message, name).extend(value)
        else:
            setattr(message, name, json.loads(value) if isinstance(value, Number) else value)
    elif kind.GetOptions().map_entry:
        for key, item in value.items():
            getattr(message, name)[key] = json.loads(item) if isinstance(item, Number) else item
    elif kind in (Struct.DESCRIPTOR, Value.DESCRIPTOR):
        if isinstance(value, str):
            getattr(message, name).string_value = value
        elif value is None:
            getattr(message, name).null_value = 0
        else:
            extra[field.json_name] = value
    else:
        for item in value if field.is_repeated else [value]:
            inner = getattr(message, name).add() if field.is_repeated else getattr(message, name)
            to_message(item, inner, typed=typed)


def _of_field(field: Any, value: Any) -> Any:
    if field.message_type is None:
        return read(json.dumps(list(value) if field.is_repeated else value))
    if field.message_type.GetOptions().map_entry:
        return {key: Number(f"{item:g}") if isinstance(item, float) else item for key, item in value.items()}
    return [of_message(item) for item in value] if field.is_repeated else of_message(value)


_IN_PIECES = frozenset({"content", "reasoning_content", "refusal", "data", "transcript", "arguments", "input"})


def joined(chunks: Iterable[Any]) -> Any:
    """Merges the chunks of a stream into the complete answer, as a caller does."""
    non_streaming: dict[str, Any] = {}
    choices: dict[str, Any] = {}
    for chunk in chunks:
        for choice in chunk.get("choices", ()):
            made = choices.setdefault(choice["index"], {"message": {}})
            _join(made["message"], choice["delta"])
            _join(made, {name: value for name, value in choice.items() if name != "delta"})
        _join(non_streaming, {name: value for name, value in chunk.items() if name != "choices"})
    return non_streaming | {"choices": list(choices.values())}


def _join(into: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if value is None and name in KNOWN:
            continue
        if name == "tool_calls":
            calls = into.setdefault(name, [])
            for call in value:
                calls.extend({} for _ in range(int(call["index"]) + 1 - len(calls)))
                _join(calls[int(call["index"])], {name: value for name, value in call.items() if name != "index"})
        elif name in _IN_PIECES and isinstance(value, str):
            into[name] = into.get(name, "") + value
        elif isinstance(value, dict) and name in KNOWN:
            _join(into.setdefault(name, {}), value)
        elif isinstance(value, list) and name in KNOWN:
            into[name] = into.get(name, []) + value
        else:
            into[name] = value


OURS = frozenset({"id", "object", "created", "model", "chatSessionId"})
"""Fields that Parley sets in an answer."""
_TYPES = [*message_pb2.DESCRIPTOR.message_types_by_name.values()]
_TYPES += chat_completions_pb2.DESCRIPTOR.message_types_by_name.values()
_FIELDS = frozenset(field.json_name for kind in _TYPES for field in json_fields(kind))
KNOWN = frozenset(name for name in _FIELDS if name != "extra" and not name.endswith("_json"))
"""The names of the fields of Parley's messages."""
UNORDERED = KNOWN | {"text", "image_url", "url", "cache_control"}
"""Members that Parley may reorder: the fields of its messages, and common ones of content parts."""


def require_in(expected: Any, actual: Any) -> None:
    """Raises AssertionError unless the actual value contains the expected one; its objects may have more members.

    Members that Parley does not know are in the same order.
    """
    found = difference(expected, actual)
    if found:
        note(f"sent: {write(expected):.100000}")
    assert found is None, found


def difference(expected: Any, actual: Any, path: str = "") -> str | None:  # noqa: PLR0911 - one return for each difference
    """Returns the first difference with its path, or None. See `require_in`."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name, value in expected.items():
            if name not in actual:
                return f"{path}.{name} is missing"
            if found := difference(value, actual[name], f"{path}.{name}"):
                return found
        order = [name for name in expected if name not in UNORDERED]
        found_order = [name for name in actual if name not in UNORDERED and name in expected]
        if order != found_order:
            return f"{path} has {found_order} instead of {order}"
        return None
    if isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return f"{path} has {len(actual)} items instead of {len(expected)}: {actual!r:.300}"
        pairs = enumerate(zip(expected, actual, strict=True))
        return next((found for index, (a, b) in pairs if (found := difference(a, b, f"{path}[{index}]"))), None)
    is_equal = type(expected) is type(actual) and expected == actual
    return None if is_equal else f"{path} is {actual!r:.300} instead of {expected!r:.300}"
