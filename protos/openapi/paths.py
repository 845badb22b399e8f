"""The paths: each HTTP annotation of the protos, under each dialect that serves it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, MethodDescriptorProto

from parley.rpc.field_rules import DIALECT_RANGES
from protos.openapi import errors
from protos.openapi.descriptor import Protos, http_rules, local_name
from protos.openapi.schemas import Schemas, reference

JSON = "application/json"


@dataclass(frozen=True)
class Dialect:
    """A dialect: the protos' paths that begin with `base`, after `prefix`; `shape` is the format of its errors.

    `streams` describes the choice between a unary response and a stream; `demands` narrows the schema of a request.
    """

    name: str
    base: str
    shape: errors.Shape
    prefix: str = ""
    streams: str = "`stream` selects a stream; if it is absent, `Accept` does."
    demands: dict[str, Any] | None = None


# Not `{"type": "string"}`: client generators cannot merge that with a nullable type.
_MODEL = {"not": {"type": "null"}}
_MODEL_REQUIRED = {"required": ["model"], "properties": {"model": _MODEL}}


def _narrower(dialect: str) -> dict[str, Any]:
    """Returns the highest values of a dialect; the lowest are those of the request's schema."""
    return {name: {"maximum": high} for name, (_, high) in DIALECT_RANGES[dialect].items()}


# The dialects of edge/envoy.yaml and edge/lua/dialects.lua.
DIALECTS = (
    Dialect("openai", "/v1/", errors.OPENAI),
    Dialect("chipp", "/api/v1/", errors.PLAIN, demands=_MODEL_REQUIRED),
    Dialect(
        "upchatty",
        "/api/v1/",
        errors.PLAIN,
        "/upchatty",
        demands={"required": ["model"], "properties": {"model": _MODEL, **_narrower("upchatty")}},
    ),
    Dialect(
        "fastapi",
        "/api/v1/",
        errors.DETAIL,
        "/fastapi",
        streams="`Accept` selects a unary response or a stream; if it allows both, `stream` does.",
    ),
    Dialect("openpipe", "/api/v1/", errors.OPENAI, "/openpipe", demands=_MODEL_REQUIRED),
)

# The phrases of RFC 9110, which `HTTPStatus` has since Python 3.13.
_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}
_RETRY_AFTER = (409, 429, 500, 503)
# The suffixes of the edge's internal paths; clients use the path without a suffix.
_OF_THE_EDGE = (":stream", ":json")
_STREAMS = {"CreateChatCompletion": "StreamChatCompletionEvents"}
_CHAT_HEADERS = ["X-Chat-Session-ID", "Idempotency-Key", "Cache-Control"]
_KEYED = ("ForkSession", "AddSessionMessages", "DeleteSession")  # the writes other than completions
# The fields in the bodies of methods other than completions; the other fields are in the path.
_BODIES: dict[str, dict[str, Any]] = {
    "ForkSession": {"through_turn": 1},
    "UpdateSession": {"title": "Capitals of Europe", "labels": {"team": "support", "draft": None}},
    "AddSessionMessages": {
        "messages": [{"role": "user", "content": "And of Germany?"}, {"role": "assistant", "content": "Berlin."}],
        "model": "myapp-123",
        "metadata": {"source": "phone"},
    },
    "ImportSessions": {"body": ""},
}
_OPTIONAL_BODIES = ("ForkSession",)
_CHUNK = {
    "type": "string",
    "contentMediaType": JSON,
    "contentSchema": {"anyOf": [reference("ChatCompletionChunk"), reference(errors.OPENAI.name)]},
}
_EVENT = {
    "description": "Each event is a chunk, or an error, which ends the stream. `[DONE]` follows a complete answer.",
    "type": "object",
    "properties": {"data": {"anyOf": [{"const": "[DONE]"}, _CHUNK]}},
    "required": ["data"],
}
_EVENTS = (
    'data: {"id":"chatcmpl-abc123","object":"chat.completion.chunk","created":1699451234,"model":"myapp-123",'
    '"choices":[{"index":0,"delta":{"role":"assistant","content":"Paris."},"logprobs":null,"finish_reason":null}]}\n\n'
    'data: {"id":"chatcmpl-abc123","object":"chat.completion.chunk","created":1699451234,"model":"myapp-123",'
    '"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
    "data: [DONE]\n\n"
)
_LINES = (
    '{"role":"user","content":"What is the capital of France?","turn":1,"state":"completed","created":1699451233}\n'
    '{"role":"assistant","content":"Paris.","turn":1,"state":"completed","created":1699451233,'
    '"usage":{"prompt_tokens":14,"completion_tokens":2,"total_tokens":16}}\n'
)
_EXPORT = {
    "description": "JSON Lines, one message per line: its fields, and those of its `SessionMessage`.",
    "content": {"application/jsonl": {"schema": {"type": "string"}, "example": _LINES}},
}

_SESSIONS = (
    '{"object":"chat.session","id":"0199c1b2-7d3e-7a40-9f51-3b8e2c6d4a10","model":"myapp-123","created":1699451233,'
    f'"updated":1699451233,"turn_count":1}}\n{_LINES}'
)
_ALL_SESSIONS = {
    "description": "JSON Lines: for each session a line with its properties, then its messages.",
    "content": {"application/jsonl": {"schema": {"type": "string"}, "example": _SESSIONS}},
}

PARAMETERS = {
    "X-Correlation-ID": {
        "name": "X-Correlation-ID",
        "in": "header",
        "description": "The caller's own id of the call, up to 256 characters of printable ASCII; an invalid id is "
        "replaced. It is returned in the response, and logged.",
        "schema": {"type": "string"},
    },
    "X-Chat-Session-ID": {
        "name": "X-Chat-Session-ID",
        "in": "header",
        "description": "The session to continue, as `chatSessionId` in the body.",
        "schema": {"type": "string"},
    },
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same request with the same key within 24 hours gets the stored answer, unary or as a "
        "stream; 404 after its session was deleted.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    },
    "Cache-Control": {
        "name": "Cache-Control",
        "in": "header",
        "description": "For a model with a cache: `no-cache` gets a new answer, which replaces a kept one; `max-age` "
        "gets no answer older than so many seconds; `no-store` gets a new answer, which is not kept.",
        "schema": {"type": "string"},
    },
}


def _header(description: str, *, always: bool, **schema: Any) -> dict[str, Any]:
    return {"description": description, "required": always, "schema": schema}


HEADERS = {
    "x-request-id": _header("The call's id: the caller's, or a generated one.", always=True, type="string"),
    "x-correlation-id": _header("The caller's own id of the call, or else the call's id.", always=False, type="string"),
    "parley-processing-ms": _header("Milliseconds until the start of the response.", always=False, type="string"),
    "x-chat-session-id": _header("The session of the turn, if any.", always=False, type="string"),
    "idempotent-replayed": _header(
        "`true`: the stored answer of the same `Idempotency-Key`.", always=False, type="string"
    ),
    "x-parley-deprecated": _header(
        'The last day of the alias that the request names, and the id to use: `2027-01-31; use="support"`.',
        always=False,
        type="string",
    ),
    "x-parley-cache": _header(
        "Whether the answer is a kept one, for a model with a cache: `bypass` if the cache is not for such a request.",
        always=False,
        type="string",
        enum=["hit", "miss", "bypass"],
    ),
    "content-disposition": _header("The suggested name of a file.", always=True, type="string"),
    "www-authenticate": _header(
        "The form of the credential, the error, and where to get an access token (RFC 6750, 3; RFC 9728, 5.1).",
        always=True,
        type="string",
    ),
    "retry-after": _header("The number of seconds after which to retry.", always=False, type="integer"),
    "x-should-retry": _header("Whether a retry may succeed.", always=True, type="string", enum=["true", "false"]),
}
_LIMITS = {
    f"x-ratelimit-{what}-{kind}": _header(description.format(kind), always=False, type=schema)
    for kind in ("requests", "tokens")
    for what, description, schema in (
        ("limit", "The limit of {} per minute for the key or its account, where one is set.", "integer"),
        ("remaining", "The remaining {}. Each call reserves the tokens that it may need.", "integer"),
        ("reset", "The time until all {} are available again: `20ms`, `1s`, `6m0s`.", "string"),
    )
}
HEADERS |= _LIMITS
_EVERY_HEADER = ["x-request-id", "x-correlation-id", "parley-processing-ms"]


class Paths:
    """Builds the document's `paths`; `examples` has requests and responses by the name of their message."""

    def __init__(self, protos: Protos, schemas: Schemas, examples: dict[str, Any]) -> None:
        self._protos = protos
        self._schemas = schemas
        self._examples = examples

    def all(self) -> dict[str, dict[str, Any]]:
        """Returns each path's operations."""
        found: dict[str, dict[str, Any]] = {}
        for dialect in DIALECTS:
            for service, method, verb, path in self._bindings():
                if path.startswith(dialect.base) and not path.endswith(_OF_THE_EDGE):
                    plain = dialect.prefix + re.sub(r"=\*\*", "", path)
                    found.setdefault(plain, {})[verb] = self._operation(dialect, service, method, path)
        return found

    def _bindings(self) -> Iterator[tuple[str, MethodDescriptorProto, str, str]]:
        for service in self._protos.services.values():
            for method in service.method:
                for verb, path in http_rules(method):
                    yield service.name, method, verb, path

    def _operation(self, dialect: Dialect, service: str, method: MethodDescriptorProto, path: str) -> dict[str, Any]:
        comment = self._protos.comments[f"{service}.{method.name}"]
        operation: dict[str, Any] = {
            "operationId": f"{dialect.name}{method.name}",
            "tags": [service],
            "summary": comment.partition(". ")[0].rstrip("."),
            "description": comment,
            "parameters": [*self._fields(method, path), *self._header_parameters(method)],
        }
        if method.name in _STREAMS:
            operation["description"] += f" {dialect.streams}"
            operation["requestBody"] = {"required": True, "content": {JSON: self._request(method, dialect)}}
        elif method.name == "ImportSessions":
            operation["requestBody"] = {"required": True} | _ALL_SESSIONS
        elif method.name in _BODIES:
            required = method.name not in _OPTIONAL_BODIES
            operation["requestBody"] = {"required": required, "content": {JSON: self._short_request(method)}}
        operation["responses"] = {"200": self._answer(method)} | self._errors(dialect, method.name)
        return operation

    def _fields(self, method: MethodDescriptorProto, path: str) -> list[dict[str, Any]]:
        """Returns the parameters for the request's fields, in the path or in the query."""
        if method.name in _STREAMS:
            return []
        name = local_name(method.input_type)
        elsewhere = _BODIES.get(method.name, {})
        fields = [field for field in self._protos.messages[name].field if field.name not in elsewhere]
        return [self._parameter(name, field, path) for field in fields]

    def _parameter(self, name: str, field: FieldDescriptorProto, path: str) -> dict[str, Any]:
        schema = self._schemas.property(name, field)
        description = schema.pop("description")
        if re.search(rf"{{{field.name}[=}}]", path):
            description = self._schemas.comment(name, field)
            several = " It may contain slashes." if f"{{{field.name}=**}}" in path else ""
            place = {"name": field.name, "in": "path", "required": True, "description": description + several}
            return place | {"schema": schema | {"minLength": 1}}
        return {"name": field.json_name, "in": "query", "description": description, "schema": schema}

    @staticmethod
    def _header_parameters(method: MethodDescriptorProto) -> list[dict[str, str]]:
        keyed = ["Idempotency-Key"] if method.name in _KEYED else []
        names = [*(_CHAT_HEADERS if method.name in _STREAMS else keyed), "X-Correlation-ID"]
        return [{"$ref": f"#/components/parameters/{name}"} for name in names]

    def _request(self, method: MethodDescriptorProto, dialect: Dialect) -> dict[str, Any]:
        content = self._content(method.input_type)
        if dialect.demands:
            content["schema"] = {"allOf": [content["schema"], dialect.demands]}
        return content

    def _short_request(self, method: MethodDescriptorProto) -> dict[str, Any]:
        name, example = local_name(method.input_type), _BODIES[method.name]
        fields = [field for field in self._protos.messages[name].field if field.name in example]
        properties = {field.json_name: self._schemas.property(name, field) for field in fields}
        schema = {"description": self._protos.comments[name], "type": "object", "properties": properties}
        return {"schema": schema, "example": example}

    def _content(self, type_name: str) -> dict[str, Any]:
        name = local_name(type_name)
        return {"schema": reference(name), "example": self._examples[name]}

    def _answer(self, method: MethodDescriptorProto) -> dict[str, Any]:
        if method.name == "ExportSessions":
            return _ALL_SESSIONS | {"headers": _headers("content-disposition")}
        if local_name(method.output_type) == "google.api.HttpBody":
            return _EXPORT | {"headers": _headers("x-chat-session-id", "content-disposition")}
        comment = self._protos.comments[local_name(method.output_type)]
        answer: dict[str, Any] = {"description": comment, "content": {JSON: self._content(method.output_type)}}
        if method.name in _STREAMS:
            answer["description"] = f"{comment} Or a stream of chunks."
            answer["content"]["text/event-stream"] = {"schema": _EVENT, "example": _EVENTS}
        own: tuple[str, ...] = ("idempotent-replayed",) if method.name in _KEYED else ()
        if method.name in _STREAMS:
            own = ("x-chat-session-id", "idempotent-replayed", "x-parley-deprecated", "x-parley-cache", *_LIMITS)
        return answer | {"headers": _headers(*own)}

    def _errors(self, dialect: Dialect, method: str) -> dict[str, Any]:
        shape = dialect.shape
        found = errors.by_status(self._protos, shape, method)
        return {str(status): {"$ref": f"#/components/responses/{shape.name}.{status}"} for status in found}


def error_responses(protos: Protos) -> dict[str, Any]:
    """Returns the responses of failed calls by shape and status, as `PlainError.404`."""
    shapes = {dialect.shape.name: dialect.shape for dialect in DIALECTS}
    return {
        f"{name}.{status}": _error(shape, status, together)
        for name, shape in shapes.items()
        for status, together in errors.by_status(protos, shape).items()
    }


def _error(shape: errors.Shape, status: int, together: list[errors.Failure]) -> dict[str, Any]:
    examples = {failure.name: {"summary": failure.meaning, "value": shape.body(failure)} for failure in together}
    again = ("retry-after",) if status in _RETRY_AFTER else ()
    challenge = ("www-authenticate",) if status == HTTPStatus.UNAUTHORIZED else ()
    limits = _LIMITS if status == HTTPStatus.TOO_MANY_REQUESTS else ()
    return {
        "description": _PHRASES.get(status) or HTTPStatus(status).phrase,
        "headers": _headers(*again, *challenge, *limits, *shape.headers),
        "content": {JSON: {"schema": reference(shape.name), "examples": examples}},
    }


def _headers(*more: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*_EVERY_HEADER, *more)}
