"""How calls fail: the reasons of the protos and the edge's own refusals, each as its dialect shows it."""

import operator
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from protos.openapi.descriptor import Protos

_PREFIX = "ERROR_REASON_"
_EXAMPLE = re.compile(r'^(?P<meaning>.*) Example: [A-Z_]+, (?P<status>\d+), "(?P<message>.*)"\.$')


@dataclass(frozen=True)
class Failure:
    """One way to fail: `name` is a key for its example, `code` the word for programs, `param` the field at fault."""

    name: str
    status: int
    message: str
    meaning: str
    code: str | None
    param: str | None = None


# What the edge refuses before the service sees it, as in edge/lua/errors.lua: name, status, code, message, meaning.
_EDGE_ROWS = (
    ("BAD_REQUEST", 400, "invalid_request", "Bad request", "The request is malformed."),
    (
        "UPGRADE_NOT_ALLOWED",
        403,
        "upgrade_not_allowed",
        "Upgrades are not allowed, nor absolute https URLs",
        "It asks for a WebSocket.",
    ),
    (
        "REQUEST_TIMEOUT",
        408,
        "request_timeout",
        "The request did not arrive in time; try again",
        "The request's end did not arrive within a minute.",
    ),
    (
        "REQUEST_TOO_LARGE",
        413,
        "request_too_large",
        "The request body is larger than 8 MiB",
        "The body is larger than the edge is set to take.",
    ),
    (
        "UNSUPPORTED_MEDIA_TYPE",
        415,
        "unsupported_media_type",
        "`Content-Type` must be application/json",
        "The body is not said to be JSON.",
    ),
    (
        "HEADERS_TOO_LARGE",
        431,
        "headers_too_large",
        "The request headers are too large: 12 KiB in 100 headers are allowed",
        "The headers are too large, or too many.",
    ),
    (
        "BAD_GATEWAY",
        502,
        "bad_gateway",
        "The service did not answer properly; try again",
        "What a worker sent is not HTTP. Try again.",
    ),
    (
        "SERVICE_UNAVAILABLE",
        503,
        "service_unavailable",
        "The service is not available; try again later",
        "No worker serves. Try again after `retry-after`.",
    ),
    (
        "SERVICE_TIMEOUT",
        504,
        "timeout",
        "The service did not answer in time; try again later",
        "A worker took too long. Try again.",
    ),
)
EDGE = {name: Failure(name, status, said, meaning, code) for name, status, code, said, meaning in _EDGE_ROWS}

# Every call can fail so, and these methods in these ways besides. CreateChatCompletion can in all ways.
_EVERY = [
    "BAD_REQUEST",
    "UPGRADE_NOT_ALLOWED",
    "REQUEST_TIMEOUT",
    "HEADERS_TOO_LARGE",
    "BAD_GATEWAY",
    "SERVICE_UNAVAILABLE",
    "SERVICE_TIMEOUT",
    "MISSING_API_KEY",
    "INVALID_API_KEY",
    "PLAN_REQUIRED",
    "STORE_UNAVAILABLE",
    "SHUTTING_DOWN",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
]
_KEY = ("IDEMPOTENCY_KEY_IN_USE", "IDEMPOTENCY_KEY_REUSED")
_BESIDES = {
    "ListModels": [],
    "GetModel": ["MODEL_NOT_FOUND"],
    "ListSessions": ["INVALID_REQUEST"],
    "GetSession": ["SESSION_NOT_FOUND"],
    "ListSessionMessages": ["INVALID_REQUEST", "SESSION_NOT_FOUND"],
    "ExportSession": ["SESSION_NOT_FOUND"],
    "ForkSession": ["INVALID_REQUEST", "SESSION_NOT_FOUND", "REQUEST_TOO_LARGE", *_KEY],
    "DeleteSession": ["INVALID_REQUEST", "SESSION_NOT_FOUND", "SESSION_BUSY", *_KEY],
}

_PARAMS = {
    "INVALID_REQUEST": "messages",
    "MODEL_NOT_FOUND": "model",
    "SESSION_NOT_FOUND": "chatSessionId",
    "SESSION_BUSY": "chatSessionId",
    "UNSUPPORTED_PARAMETER": "audio",
}


def reasons(protos: Protos) -> Iterator[Failure]:
    """Yields a failure for each reason of the protos, from the example in its comment."""
    for value in protos.enums["ErrorReason"].value[1:]:
        name = value.name.removeprefix(_PREFIX)
        comment = protos.comments[f"ErrorReason.{value.name}"]
        found = _EXAMPLE.match(comment)
        if not found:
            raise ValueError(f"the comment of {value.name} has no example: {comment}")
        yield Failure(name, int(found["status"]), found["message"], found["meaning"], name.lower(), _PARAMS.get(name))


def known(protos: Protos) -> dict[str, Failure]:
    """Returns all ways to fail, by name: the edge's own and the service's."""
    return EDGE | {failure.name: failure for failure in reasons(protos)}


@dataclass(frozen=True)
class Shape:
    """What errors look like: the name of their schema, the schema, an error's body, own headers, the HTTP status."""

    name: str
    schema: dict[str, Any]
    body: Callable[[Failure], dict[str, Any]]
    headers: tuple[str, ...] = ()
    status: Callable[[Failure], int] = operator.attrgetter("status")


def by_status(protos: Protos, shape: Shape, method: str | None = None) -> dict[int, list[Failure]]:
    """Returns the ways in which a method, or any, can fail, by their HTTP status in this shape."""
    every = known(protos)
    names: Iterable[str] = [*_EVERY, *_BESIDES[method]] if method in _BESIDES else every
    found: dict[int, list[Failure]] = {}
    for failure in sorted((every[name] for name in names), key=shape.status):
        found.setdefault(shape.status(failure), []).append(failure)
    return found


_OPENAI_CODES = {
    "missing_api_key": "invalid_api_key",
    "upstream_quota_exhausted": "insufficient_quota",
    "upstream_rate_limited": "rate_limit_exceeded",
    "rate_limited": "rate_limit_exceeded",
}


def _openai_type(failure: Failure) -> str:
    if failure.code == "upstream_quota_exhausted":
        return "insufficient_quota"
    if failure.status == 429:  # noqa: PLR2004 - an HTTP status
        return "rate_limit_error"
    return "server_error" if failure.status >= 500 else "invalid_request_error"  # noqa: PLR2004 - likewise


def _openai_body(failure: Failure) -> dict[str, Any]:
    code = _OPENAI_CODES.get(failure.code or "", failure.code)
    kind = _openai_type(failure)
    return {"error": {"message": failure.message, "type": kind, "param": failure.param, "code": code}}


def _object(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "type": "object", "properties": properties, "required": [*properties]}


_MESSAGE = {"description": "What went wrong.", "type": "string"}
_OPENAI_ERROR = {
    "message": _MESSAGE,
    "type": {
        "type": "string",
        "enum": ["invalid_request_error", "rate_limit_error", "insufficient_quota", "server_error"],
    },
    "param": {"description": "The field at fault, as `messages[0].role`.", "type": ["string", "null"]},
    "code": {"description": "A word for programs.", "type": ["string", "null"]},
}

OPENAI = Shape(
    "OpenAIError",
    _object("A failed call, as OpenAI shows it.", {"error": _object("The failure.", _OPENAI_ERROR)}),
    _openai_body,
    ("x-should-retry",),
)
_SERVER_ERROR = 500
PLAIN = Shape(
    "PlainError",
    _object("A failed call.", {"error": _MESSAGE}),
    lambda failure: {"error": "Internal Server Error" if failure.status > _SERVER_ERROR else failure.message},
    status=lambda failure: min(failure.status, _SERVER_ERROR),  # the only server error of these dialects' documents
)


# What the fastapi dialect says at length, with the status 422.
_VALIDATION = "invalid_request"


def _detail_body(failure: Failure) -> dict[str, Any]:
    if failure.code != _VALIDATION:
        return {"detail": failure.message}
    loc = ["body", *([failure.param] if failure.param else [])]
    return {"detail": [{"loc": loc, "msg": failure.message, "type": "value_error"}]}


_VIOLATION = {
    "loc": {
        "description": 'Where: `["body", "messages", 0, "role"]`.',
        "type": "array",
        "items": {"type": ["string", "integer"]},
    },
    "msg": _MESSAGE,
    "type": {"description": "A word for programs.", "type": "string"},
}
_DETAIL = {
    "description": "What went wrong; for a request that is not valid (422), every violation.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": _object("A violation.", _VIOLATION)}],
}

DETAIL = Shape(
    "DetailError",
    _object("A failed call, as FastAPI shows it.", {"detail": _DETAIL}),
    _detail_body,
    status=lambda failure: 422 if failure.code == _VALIDATION else failure.status,
)
