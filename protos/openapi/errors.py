"""The documented failures of calls: the reasons of the protos and the edge's own errors, in each dialect."""

import operator
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from parley.rpc import error_catalogue
from parley.v1.error_reason_pb2 import ErrorReason
from protos.openapi.descriptor import Protos

_PREFIX = "ERROR_REASON_"
_EXAMPLE = re.compile(r'^(?P<meaning>.*) Example: (?P<grpc>[A-Z_]+), (?P<http>\d+), "(?P<message>.*)"\.$')


@dataclass(frozen=True)
class Failure:
    """A documented failure; `name` is the key of its example, and the other fields are those of the catalogue."""

    name: str
    status: int
    message: str
    meaning: str
    code: str
    openai_type: str
    param: str | None = None


# The API document shows the explained 400, which has this code.
_EXPLAINED_CODE = "invalid_request"
EDGE = {
    row.name: Failure(
        row.name, status, row.example or row.message, row.meaning, row.code or _EXPLAINED_CODE, row.openai_type
    )
    for status, row in error_catalogue.EDGE.items()
    if row.name
}

# The failures of every method, and the further ones of these methods. CreateChatCompletion can have all failures.
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
    "INVALID_TOKEN",
    "PLAN_REQUIRED",
    "ACCOUNT_SUSPENDED",
    "SCOPE_REQUIRED",
    "INSUFFICIENT_SCOPE",
    "ISSUER_UNAVAILABLE",
    "STORE_UNAVAILABLE",
    "SHUTTING_DOWN",
    "CALL_CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
]
_KEY = ("IDEMPOTENCY_KEY_IN_USE", "IDEMPOTENCY_KEY_REUSED")
_FURTHER = {
    "ListModels": [],
    "GetModel": ["MODEL_NOT_FOUND"],
    "GetUsageReport": ["INVALID_REQUEST"],
    "ListSessions": ["INVALID_REQUEST"],
    "GetSession": ["SESSION_NOT_FOUND"],
    "ListSessionMessages": ["INVALID_REQUEST", "SESSION_NOT_FOUND"],
    "ExportSession": ["SESSION_NOT_FOUND"],
    "ForkSession": ["INVALID_REQUEST", "SESSION_NOT_FOUND", "REQUEST_TOO_LARGE", *_KEY],
    "UpdateSession": ["INVALID_REQUEST", "SESSION_NOT_FOUND", "REQUEST_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"],
    "AddSessionMessages": [
        "INVALID_REQUEST",
        "MODEL_NOT_FOUND",
        "SESSION_NOT_FOUND",
        "SESSION_BUSY",
        "STORAGE_LIMIT_EXCEEDED",
        "REQUEST_TOO_LARGE",
        "UNSUPPORTED_MEDIA_TYPE",
        *_KEY,
    ],
    "ExportSessions": [],
    "ImportSessions": ["INVALID_REQUEST", "STORAGE_LIMIT_EXCEEDED", "REQUEST_TOO_LARGE"],
    "DeleteSession": ["INVALID_REQUEST", "SESSION_NOT_FOUND", "SESSION_BUSY", *_KEY],
}

ADMIN = {"KEY_NOT_FOUND", "KEY_REVOKED", "ACCOUNT_NOT_FOUND", "ACCOUNT_EXISTS", "INVALID_ADMIN_KEY"}
"""Failures of the calls of administrators, which are not in the API document."""

_PARAMS = {
    "INVALID_REQUEST": "messages",
    "MODEL_NOT_FOUND": "model",
    "SESSION_NOT_FOUND": "chatSessionId",
    "SESSION_BUSY": "chatSessionId",
    "UNSUPPORTED_PARAMETER": "audio",
}


def reasons(protos: Protos) -> Iterator[Failure]:
    """Yields a failure for each reason of the service, from the example in its comment in the protos."""
    for value in protos.enums["ErrorReason"].value[1:]:
        if ErrorReason.ValueType(value.number) not in error_catalogue.SERVICE:
            continue  # of the edge: above
        name = value.name.removeprefix(_PREFIX)
        comment = protos.comments[f"ErrorReason.{value.name}"]
        found = _EXAMPLE.match(comment)
        if not found:
            raise ValueError(f"the comment of {value.name} has no example: {comment}")
        row = error_catalogue.SERVICE[ErrorReason.ValueType(value.number)]
        if (found["grpc"], int(found["http"])) != (row.grpc_status.name, row.http_status):
            raise ValueError(f"the comment of {value.name} shows another status than the catalogue: {comment}")
        yield Failure(
            name, row.http_status, found["message"], found["meaning"], name.lower(), row.openai_type, _PARAMS.get(name)
        )


def known(protos: Protos) -> dict[str, Failure]:
    """Returns the failures of callers by name: the edge's own and the service's."""
    return EDGE | {failure.name: failure for failure in reasons(protos) if failure.name not in ADMIN}


@dataclass(frozen=True)
class Shape:
    """The format of errors: the name of their schema, the schema, the body, additional headers, the HTTP status."""

    name: str
    schema: dict[str, Any]
    body: Callable[[Failure], dict[str, Any]]
    headers: tuple[str, ...] = ()
    status: Callable[[Failure], int] = operator.attrgetter("status")


def by_status(protos: Protos, shape: Shape, method: str | None = None) -> dict[int, list[Failure]]:
    """Returns the failures of a method, or of all methods, by their HTTP status in this shape."""
    every = known(protos)
    names: Iterable[str] = [*_EVERY, *_FURTHER[method]] if method in _FURTHER else every
    found: dict[int, list[Failure]] = {}
    for failure in sorted((every[name] for name in names), key=shape.status):
        found.setdefault(shape.status(failure), []).append(failure)
    return found


def _openai_body(failure: Failure) -> dict[str, Any]:
    code = error_catalogue.OPENAI_CODES.get(failure.code, failure.code)
    return {"error": {"message": failure.message, "type": failure.openai_type, "param": failure.param, "code": code}}


def _object(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "type": "object", "properties": properties, "required": [*properties]}


_MESSAGE = {"description": "The message.", "type": "string"}
_OPENAI_ERROR = {
    "message": _MESSAGE,
    "type": {"type": "string", "enum": list(error_catalogue.OPENAI_TYPES)},
    "param": {"description": "The field at fault, as `messages[0].role`.", "type": ["string", "null"]},
    "code": {"description": "A machine-readable code.", "type": ["string", "null"]},
}

OPENAI = Shape(
    "OpenAIError",
    _object("A failed call, in OpenAI's format.", {"error": _object("The failure.", _OPENAI_ERROR)}),
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


# The code of failures that the fastapi dialect shows with all violations and the status 422.
_VALIDATION = "invalid_request"


def _detail_body(failure: Failure) -> dict[str, Any]:
    if failure.code != _VALIDATION:
        return {"detail": failure.message}
    loc = ["body", *([failure.param] if failure.param else [])]
    return {"detail": [{"loc": loc, "msg": failure.message, "type": "value_error"}]}


_VIOLATION = {
    "loc": {
        "description": 'The location: `["body", "messages", 0, "role"]`.',
        "type": "array",
        "items": {"type": ["string", "integer"]},
    },
    "msg": _MESSAGE,
    "type": {"description": "A machine-readable code.", "type": "string"},
}
_DETAIL = {
    "description": "The message; for an invalid request (422), every violation.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": _object("A violation.", _VIOLATION)}],
}

DETAIL = Shape(
    "DetailError",
    _object("A failed call, in FastAPI's format.", {"detail": _DETAIL}),
    _detail_body,
    status=lambda failure: 422 if failure.code == _VALIDATION else failure.status,
)
