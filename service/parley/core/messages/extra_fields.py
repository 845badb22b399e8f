"""Unknown fields, read, merged and written as JSON without loss.

A message has them as text in `extra_json`. Integers of any size and the digits of decimal numbers are kept.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

import orjson

_MAX_CACHED_LENGTH = 16 * 1024  # characters; with 256 entries, a few MiB in all
_LONG = 18  # characters of an integer that always fits into 64 bits
_LONGEST = 300  # digits of an integer within the range of a double; Python parses at most 4,300


class _Integer(int):
    """An integer that may not fit into 64 bits, with its text."""

    text: str


class _Decimal(float):
    """A number with a fraction or an exponent, with its text."""

    text: str


def loads(text: str | bytes) -> Any:
    """Reads JSON so that `dumps` writes its numbers unchanged. Raises ValueError, RecursionError."""
    return _decode(text.decode() if isinstance(text, bytes) else text)


def loads_strictly(text: str | bytes) -> Any:
    """Reads JSON as `loads` does, but only what RFC 8259 allows. Raises ValueError, RecursionError."""
    return _decode_strictly(text.decode() if isinstance(text, bytes) else text)


def read_object(text: str) -> dict[str, Any] | None:
    """Reads the text of a JSON object; returns None for any other text.

    JSON allows numbers of any size. orjson rejects those beyond the range of a double; a slower reader accepts them.
    """
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError:
        data = _read_large(text)
    return data if isinstance(data, dict) else None


def is_schema(text: str) -> bool:
    """Reports whether a JSON Schema is the text of a JSON object; recent results are cached.

    Validation and the request builder of every attempt check the same text, and agents send the same tools with each
    call. So a schema is parsed once.
    """
    return _is_object(text) if len(text) <= _MAX_CACHED_LENGTH else read_object(text) is not None


@lru_cache(maxsize=256)
def _is_object(text: str) -> bool:
    return read_object(text) is not None


def repeated_key(text: str) -> str | None:
    """Returns a key that an object within the JSON text has twice, or None; results of short texts are cached.

    Readers differ in which of two values they use, so such a text has no certain meaning.
    """
    return _repeated_key(text) if len(text) <= _MAX_CACHED_LENGTH else _find_repeated(text)


@lru_cache(maxsize=256)
def _repeated_key(text: str) -> str | None:
    return _find_repeated(text)


def _find_repeated(text: str) -> str | None:
    found: list[str] = []

    def check(pairs: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys) and not found:
            found.append(next(key for at, key in enumerate(keys) if key in keys[:at]))

    with suppress(ValueError, RecursionError):  # text that is not JSON has another fault
        json.JSONDecoder(object_pairs_hook=check, parse_int=len, parse_float=len, strict=False).decode(text)
    return found[0] if found else None


def _read_large(text: str) -> Any:
    try:
        data = _decode_strictly(text)
        dumps(data)  # rejects unpaired surrogates
    except (ValueError, TypeError, RecursionError):
        return None
    return data


def dumps(data: Any) -> str:
    """Writes JSON. Raises TypeError for data that JSON cannot express, and for text that is not Unicode."""
    return dump_bytes(data).decode()


def merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Merges members of a later chunk: arrays are appended, objects are merged, other values are replaced."""
    for name, value in more.items():
        known = into.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            merge(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            into[name] = known + value
        else:
            into[name] = value


def merge_text(text: str, more: str) -> str:
    """Merges the texts of two JSON objects by `merge`; "" is an empty object."""
    if not text or not more:
        return text or more
    merged: dict[str, Any] = loads(text)
    merge(merged, loads(more))
    return dumps(merged)


def _int(text: str) -> float:
    if len(text) <= _LONG and text != "-0":
        return int(text)
    if len(text) > _LONGEST:
        return _decimal(text)
    number = _Integer(text)
    number.text = text
    return number


def _decimal(text: str) -> float:
    number = _Decimal(text)
    number.text = text
    return number


def _exact(data: Any) -> Any:
    if isinstance(data, _Integer | _Decimal):
        return orjson.Fragment(data.text)
    raise TypeError(type(data).__name__)


def _refuse(text: str) -> None:
    raise ValueError(text)


dump_bytes: Callable[[Any], bytes] = partial(orjson.dumps, default=_exact, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
"""Writes JSON as UTF-8; see `dumps`."""
_decode_strictly = json.JSONDecoder(parse_int=_int, parse_float=_decimal, parse_constant=_refuse).decode
_decode = json.JSONDecoder(parse_int=_int, parse_float=_decimal, parse_constant=lambda _: None, strict=False).decode
