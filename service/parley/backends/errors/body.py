"""Parses error bodies in the formats of OpenAI, Anthropic, Google, AWS, FastAPI and others.

An error may be nested in another one: `{"error": …}`, `{"detail": …}`, a list, or JSON in a string (`metadata.raw` of
OpenRouter, `message` of Gemini proxies). The innermost message is the most specific.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from parley.backends import lenient_json
from parley.backends.errors import retry_delay
from parley.backends.errors.kinds import STATUS_OF_GRPC, STATUS_OF_WORD

_MAX_DEPTH = 6
_MAX_LENGTH = 4000  # characters of one message that are kept
_INNER = ("error", "detail", "errors", "base_resp", "innererror", "inner_error", "response", "metadata", "raw", "body")
_MESSAGES = ("message", "msg", "Message", "error_msg", "errorMessage", "status_msg", "error_description", "title")
_CODES = ("code", "type", "status", "reason", "error_type", "error_code", "errorCode", "errorType", "__type")
_STATUSES = ("code", "status", "status_code", "statusCode", "http_status", "http_code")


@dataclass(slots=True)
class ErrorBody:
    """One parsed error."""

    message: str = ""
    """The innermost message."""
    text: str = ""
    """All messages, joined with line breaks, and hints for the patterns of `known_bodies`."""
    code: str | None = None
    """The innermost `code` that is not a number."""
    codes: set[str] = field(default_factory=set)
    """All codes, types, statuses and reasons, in lower case."""
    param: str | None = None
    """Path of the rejected request field."""
    status: int | None = None
    """HTTP status named in the body."""
    retry_after: float | None = None
    """Seconds to wait."""
    validated: bool = False
    """Whether the messages come from the server's own request validation (FastAPI)."""


def parse(data: bytes) -> ErrorBody:
    """Parses the body of an error response; an HTML page yields an empty error."""
    try:
        return read(lenient_json.loads(data))
    except (ValueError, RecursionError):
        text = data.decode(errors="replace").strip()
        return read("" if text.startswith("<") else text)


def read(error: Any) -> ErrorBody:
    """Parses an error from JSON data or a string."""
    found = ErrorBody()
    messages: list[str] = []
    for layer in _layers(error, 0):
        if isinstance(layer, str):
            messages.append(layer[:_MAX_LENGTH])
        else:
            messages.extend(_message(layer))
            _add(found, layer)
    found.message = messages[-1] if messages else ""
    found.text = "\n".join(messages + _hints(found))
    found.retry_after = retry_delay.from_text(found.text) if found.retry_after is None else found.retry_after
    return found


def _layers(value: Any, depth: int) -> Iterator[dict[str, Any] | str]:
    """Yields the nested objects and strings of an error, outermost first."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, str):
        inner = _json(value)
        if inner is None:
            if value.strip():
                yield value.strip()
        else:
            yield from _layers(inner, depth + 1)
    elif isinstance(value, list):
        yield from _layers_of_list(value, depth)
    elif isinstance(value, dict):
        yield value
        for name in _INNER:
            yield from _layers(value.get(name), depth + 1)
        for name in _MESSAGES:
            if isinstance(value.get(name), str):
                yield from _layers(_json(value[name]), depth + 1)


def _layers_of_list(value: list[Any], depth: int) -> Iterator[dict[str, Any] | str]:
    """Yields the layers of the first item; FastAPI's validation errors are joined into one message."""
    if value and all(isinstance(item, dict) and "msg" in item and "loc" in item for item in value):
        yield {"message": "; ".join(_detail(item) for item in value), "param": _location(value[0]), "validated": True}
    elif value:
        yield from _layers(value[0], depth + 1)


def _detail(item: Mapping[str, Any]) -> str:
    """Formats one of FastAPI's validation errors, without its `input`."""
    location = _location(item)
    return f"{location}: {item.get('msg')}" if location else str(item.get("msg"))


def _location(item: Mapping[str, Any]) -> str:
    loc = item.get("loc")
    return ".".join(str(part) for part in (loc if isinstance(loc, list) else ()) if part != "body")


def _message(layer: Mapping[str, Any]) -> list[str]:
    return [
        str(layer[name])[:_MAX_LENGTH]
        for name in _MESSAGES
        if isinstance(layer.get(name), str) and layer[name].strip() and _json(layer[name]) is None
    ][:1]


def _add(found: ErrorBody, layer: Mapping[str, Any]) -> None:
    for name in _CODES:
        value = layer.get(name)
        if isinstance(value, str) and value:
            found.codes.add(value.rpartition("#")[2].lower())
        elif isinstance(value, int) and not isinstance(value, bool):
            found.codes.add(str(value))
    code = layer.get("code")
    if isinstance(code, str) and code and not code.isdecimal():
        found.code = code
    param = layer.get("param")
    if isinstance(param, str) and param:
        found.param = param
    found.validated = found.validated or layer.get("validated") is True
    found.status = found.status or _status(layer)
    _add_details(found, layer.get("details"))
    _add_wait(found, layer)


def _add_wait(found: ErrorBody, fields: Mapping[str, Any]) -> None:
    """Sets `retry_after` from a field, or from the provider's headers that OpenRouter forwards."""
    if found.retry_after is None:
        found.retry_after = retry_delay.from_body(fields)
    headers = fields.get("headers")
    if found.retry_after is None and isinstance(headers, dict):
        found.retry_after = retry_delay.until_reset({name: str(value) for name, value in headers.items()})


def _add_details(found: ErrorBody, details: Any) -> None:
    """Reads google.rpc details: ErrorInfo, RetryInfo and QuotaFailure."""
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        if isinstance(detail.get("reason"), str):
            found.codes.add(detail["reason"].lower())
        _add_wait(found, detail)
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else ():
            if isinstance(violation, dict) and isinstance(violation.get("quotaId"), str):
                found.codes.add(f"quota:{violation['quotaId']}")


def _hints(found: ErrorBody) -> list[str]:
    """Returns quota ids, which name their period (minute or day), and the delay, as text for pattern matching."""
    ids = sorted(code.removeprefix("quota:") for code in found.codes if code.startswith("quota:"))
    return ids if found.retry_after is None else [*ids, f"please retry in {found.retry_after:g}s"]


def _status(layer: Mapping[str, Any]) -> int | None:
    """Returns the HTTP status that an object names: as a number, a gRPC code, or a vendor's error type."""
    for name in _STATUSES:
        value = layer.get(name)
        if isinstance(value, str) and value.isdecimal():
            value = int(value[:4])
        if isinstance(value, int) and not isinstance(value, bool):
            if 300 <= value < 600:  # noqa: PLR2004 - HTTP statuses
                return value
            if name == "code" and 0 < value < len(STATUS_OF_GRPC):
                return STATUS_OF_GRPC[value]
    words = (layer.get(name) for name in ("status", "code", "type", "error_type", "__type"))
    named = (STATUS_OF_WORD.get(word.rpartition("#")[2].lower()) for word in words if isinstance(word, str))
    return next((status for status in named if status is not None), None)


def _json(text: str) -> Any:
    """Parses a string that contains a JSON object or list; None for any other string."""
    text = text.strip()
    if text[:1] not in {"{", "["}:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
