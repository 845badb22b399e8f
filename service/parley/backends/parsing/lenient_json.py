"""JSON as upstreams really send it: what is not strictly JSON, or not Unicode, is repaired.

Strict JSON, which nearly everything is, is read by orjson. The rest is read again tolerantly: a byte order mark, NaN
and infinities (null), control characters in strings, bytes that are no UTF-8, halves of surrogate pairs. A character
whose parts came in two strings stays in parts at the end of the one and the beginning of the other, in fields that hold
text which comes in pieces; `repair_surrogates` joins them. Everywhere else what is no character becomes U+FFFD.
"""

import codecs
import json
import math
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import orjson
from google.protobuf.struct_pb2 import Struct

from parley.core.messages import extra_fields

MAX_COUNT = 2**32 - 1
"""The largest count that a message can hold."""

DEEPEST_TEXT = 101
"""Levels of JSON in text, the innermost value included: the edge takes as many from a caller who sends them back."""

_BOM = codecs.BOM_UTF8
_LONGEST = 300  # characters of an integer that a double comes near; Python reads no more than 4,300 digits
_MAX_DEPTH = 24  # levels of JSON in a Struct: each takes three of messages, which may have 100
_IN_PIECES = frozenset(
    {"content", "text", "thinking", "reasoning", "reasoning_content", "refusal", "arguments", "input", "partial_json"}
)
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_BYTES = re.compile("[\udc80-\udcff]+")  # bytes that are no UTF-8, as `surrogateescape` decodes them
_HALF = re.compile("[\ud800-\udfff]")


def loads(data: bytes) -> Any:
    """Reads JSON. Raises ValueError, RecursionError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return repaired(data)


def repaired(data: bytes) -> Any:
    """Reads JSON tolerantly. Raises ValueError, RecursionError."""
    return clean(_decode(data.removeprefix(_BOM).decode(errors="surrogateescape")))


class Source:
    """The bytes of a JSON text, for what must be taken from it exactly: integers of any size, decimals as written."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._read: Any = None

    def at(self, *path: str | int) -> Any:
        """Returns the value at a path, which must be there. `extra_fields.dumps` writes it as it came."""
        if self._read is None:
            text = self._data.removeprefix(_BOM).decode(errors="surrogateescape")
            self._read = clean(extra_fields.loads(text), in_pieces=False)
        found = self._read
        for step in path:
            found = found[step]
        return found

    def unknown(self, data: Mapping[str, Any], known: AbstractSet[str], *path: str | int) -> dict[str, Any]:
        """Returns the members of an object, the one at a path, that are not `known`."""
        if data.keys() <= known:
            return {}
        members = {name: value for name, value in data.items() if name not in known}
        if any(is_deep(value, DEEPEST_TEXT) for value in members.values()):
            members = {name: value for name, value in members.items() if not is_deep(value, DEEPEST_TEXT)}
        if all(value is None or isinstance(value, str | bool) for value in members.values()):
            return {
                repair_text(name): repair_text(value) if isinstance(value, str) else value
                for name, value in members.items()
            }
        exact = self.at(*path)
        return {repair_text(name): exact[repair_text(name)] for name in members}


def repair_surrogates(text: str) -> tuple[str, str]:
    """Joins the parts of characters in a text, in order.

    Returns the text, and what of its end may be the first part of a character. What is no character is U+FFFD.
    """
    text = _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    end = _end(text)
    text, rest = (text[:-end], text[-end:]) if end else (text, "")
    text = _BYTES.sub(lambda found: found[0].encode(errors="surrogateescape").decode(errors="replace"), text)
    return _HALF.sub("\ufffd", text), rest


def repair_text(text: str) -> str:
    """Returns a text that no other piece follows."""
    if text.isascii() or not _HALF.search(text):
        return text
    mended, rest = repair_surrogates(text)
    return mended + "\ufffd" if rest else mended


def count(value: Any) -> int | None:
    """Reads a number of something; None for what cannot be one, as a negative or an absurdly large number."""
    if value.__class__ is int:
        return value if 0 <= value <= MAX_COUNT else None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, float) and math.isfinite(value) and 0 <= value <= MAX_COUNT:
        return round(value)
    return None


def text_or_none(value: Any) -> str | None:
    """Returns a text that is not empty; None for anything else."""
    return repair_text(value) if isinstance(value, str) and value else None


def struct(data: Any) -> Struct | None:
    """Returns a JSON object as a Struct; None for what is none, or nests more deeply than messages may."""
    if not isinstance(data, dict) or is_deep(data):
        return None
    read = Struct()
    read.update(clean(data, in_pieces=False))
    return read


def is_deep(data: Any, levels: int = _MAX_DEPTH) -> bool:
    """Tells whether JSON has more levels than that, by default than a Struct may have."""
    if levels == 0:
        return True
    values = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return any(is_deep(value, levels - 1) for value in values)


def clean(data: Any, *, in_pieces: bool = True) -> Any:
    """Repairs every text; those `in_pieces` keep the parts of characters at their ends."""
    if isinstance(data, str):
        return repair_text(data)
    if isinstance(data, list):
        return [clean(item, in_pieces=in_pieces) for item in data]
    if not isinstance(data, dict):
        return data
    return {
        repair_text(name): value
        if in_pieces and name in _IN_PIECES and isinstance(value, str)
        else clean(value, in_pieces=in_pieces)
        for name, value in data.items()
    }


def _end(text: str) -> int:
    """Returns how many characters at the end of a text may be the first part of one."""
    if "\ud800" <= text[-1:] <= "\udbff":
        return 1
    found = _BYTES.search(text, max(0, len(text) - 3))
    if not found or found.end() != len(text):
        return 0
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(found[0].encode(errors="surrogateescape"))
    return len(decoder.getstate()[0])


def _integer(text: str) -> float:
    return int(text) if len(text) <= _LONGEST else float(text)


_decode = json.JSONDecoder(parse_int=_integer, parse_constant=lambda _: None, strict=False).decode
