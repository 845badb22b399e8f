"""Reading of upstreams' JSON, with repair of what is not strict JSON or not Unicode.

orjson reads strict JSON, which is nearly all. A second, tolerant reader accepts a byte order mark, NaN and infinities
(as null), control characters in strings, bytes that are not UTF-8, and unpaired surrogates. In fields whose text
arrives in pieces, a character that is split between two strings stays split, and `repair_surrogates` joins it. In all
other text, what is not a character becomes U+FFFD.
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
"""The largest value of a uint32 field."""

DEEPEST_TEXT = 101
"""The deepest JSON kept as text, innermost value included: the edge accepts as many levels in a later request."""

_BOM = codecs.BOM_UTF8
_LONGEST = 300  # digits of an integer within the range of a double; Python parses at most 4,300
_MAX_DEPTH = 24  # levels of JSON in a Struct: each is three levels of messages, of which protobuf allows 100
_IN_PIECES = frozenset(
    {"content", "text", "thinking", "reasoning", "reasoning_content", "refusal", "arguments", "input", "partial_json"}
)
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_BYTES = re.compile("[\udc80-\udcff]+")  # bytes that are not UTF-8, as `surrogateescape` decodes them
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
    """The bytes of a JSON text, to read values exactly: integers of any size, decimals as written."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._read: Any = None

    def at(self, *path: str | int) -> Any:
        """Returns the value at a path, which must exist. `extra_fields.dumps` writes it as it was received."""
        if self._read is None:
            text = self._data.removeprefix(_BOM).decode(errors="surrogateescape")
            self._read = clean(extra_fields.loads(text), in_pieces=False)
        found = self._read
        for step in path:
            found = found[step]
        return found

    def unknown(self, data: Mapping[str, Any], known: AbstractSet[str], *path: str | int) -> dict[str, Any]:
        """Returns the members of `data`, an object at a path, that are not `known`; those too deep are omitted."""
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
    """Joins the split characters of a text.

    Returns:
        The text, with U+FFFD for what is not a character, and the end of it that may be the first part of a character.
    """
    text = _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    end = _incomplete_length(text)
    text, rest = (text[:-end], text[-end:]) if end else (text, "")
    text = _BYTES.sub(lambda found: found[0].encode(errors="surrogateescape").decode(errors="replace"), text)
    return _HALF.sub("\ufffd", text), rest


def repair_text(text: str) -> str:
    """Repairs a text that no other piece follows."""
    if text.isascii() or not _HALF.search(text):
        return text
    repaired_text, rest = repair_surrogates(text)
    return repaired_text + "\ufffd" if rest else repaired_text


def count(value: Any) -> int | None:
    """Reads a count; None for another value, such as a negative number or one above 2³²-1."""
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
    """Returns the repaired text if `value` is a text that is not empty, else None."""
    return repair_text(value) if isinstance(value, str) and value else None


def struct(data: Any) -> Struct | None:
    """Returns a JSON object as a Struct; None for any other value, and for one that nests too deeply."""
    if not isinstance(data, dict) or is_deep(data):
        return None
    read = Struct()
    read.update(clean(data, in_pieces=False))
    return read


def is_deep(data: Any, levels: int = _MAX_DEPTH) -> bool:
    """Reports whether JSON has more than `levels` levels, by default more than a Struct may have."""
    if levels == 0:
        return True
    values = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return any(is_deep(value, levels - 1) for value in values)


def clean(data: Any, *, in_pieces: bool = True) -> Any:
    """Repairs every text of JSON data.

    Args:
        data: The data.
        in_pieces: Whether the ends of texts that arrive in pieces keep split characters.
    """
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


def _incomplete_length(text: str) -> int:
    """Returns how many code points at the end of a text may be the first part of a character."""
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
