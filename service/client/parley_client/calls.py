"""One call with its attempts, without I/O: the synchronous and the asynchronous client share it."""

import math
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import grpc
from google.api.httpbody_pb2 import HttpBody

from parley_client import errors
from parley_client.errors import CancelledCallError, ParleyError
from parley_client.retry import Retry
from parley_client.v1 import chat_completions_pb2 as chat
from parley_client.v1 import models_pb2 as models
from parley_client.v1 import sessions_pb2 as sessions
from parley_client.v1 import usage_pb2 as usage

_NAME = re.compile(r"[0-9a-z_.-]+")  # gRPC's rule
DEFAULT_TIMEOUT = 600.0
"""Seconds, as in OpenAI's SDKs: models that reason may be silent for minutes."""


class Observer(Protocol):
    """Observes calls, for example to trace them."""

    def start(self, method: str) -> tuple[Iterable[tuple[str, str]], Callable[[ParleyError | None], None]]:
        """Starts the observation of a call.

        Args:
            method: The RPC, for example `parley.v1.ChatCompletions/CreateChatCompletion`.

        Returns:
            Metadata to send, and the function to call with the error of the call, or None, at its end.
        """
        ...


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC."""

    path: str
    """Its name on the wire, `/package.Service/Method`."""
    response: Any
    """The class of its responses."""
    is_keyed: bool = False
    """Whether it writes, and so has an idempotency key."""
    is_stream: bool = False
    """Whether its responses are a stream."""


_CHAT, _SESSIONS, _MODELS = (f"/parley.v1.{name}/" for name in ("ChatCompletions", "Sessions", "Models"))
CREATE = Method(f"{_CHAT}CreateChatCompletion", chat.ChatCompletion, is_keyed=True)
STREAM = Method(f"{_CHAT}StreamChatCompletion", chat.ChatCompletionChunk, is_keyed=True, is_stream=True)
LIST_SESSIONS = Method(f"{_SESSIONS}ListSessions", sessions.ListSessionsResponse)
GET_SESSION = Method(f"{_SESSIONS}GetSession", sessions.Session)
LIST_MESSAGES = Method(f"{_SESSIONS}ListSessionMessages", sessions.ListSessionMessagesResponse)
EXPORT = Method(f"{_SESSIONS}ExportSession", HttpBody, is_stream=True)
FORK = Method(f"{_SESSIONS}ForkSession", sessions.Session, is_keyed=True)
UPDATE = Method(f"{_SESSIONS}UpdateSession", sessions.Session)
ADD_MESSAGES = Method(f"{_SESSIONS}AddSessionMessages", sessions.AddSessionMessagesResponse, is_keyed=True)
EXPORT_ALL = Method(f"{_SESSIONS}ExportSessions", HttpBody, is_stream=True)
IMPORT = Method(f"{_SESSIONS}ImportSessions", sessions.ImportSessionsResponse)
DELETE = Method(f"{_SESSIONS}DeleteSession", sessions.DeleteSessionResponse, is_keyed=True)
LIST_MODELS = Method(f"{_MODELS}ListModels", models.ListModelsResponse)
GET_MODEL = Method(f"{_MODELS}GetModel", models.Model)
USAGE = Method("/parley.v1.UsageReports/GetUsageReport", usage.UsageReport)
METHODS = (
    CREATE,
    STREAM,
    LIST_SESSIONS,
    GET_SESSION,
    LIST_MESSAGES,
    EXPORT,
    FORK,
    UPDATE,
    ADD_MESSAGES,
    EXPORT_ALL,
    IMPORT,
    DELETE,
    LIST_MODELS,
    GET_MODEL,
    USAGE,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What all calls of a client share."""

    key: str | None = field(repr=False)
    """The API key; None for a caller with a client certificate."""
    timeout: float | None = DEFAULT_TIMEOUT
    """Seconds for a call with all its attempts; None for no limit."""
    retry: Retry = field(default_factory=Retry)
    """When to make a call again."""
    log: Callable[..., object] | None = None
    """Called with the name of an event and its fields, for example `structlog.get_logger().info`."""
    observer: Observer | None = None
    """Observes calls, for example `parley_client.otel.Tracing()`."""
    metadata: tuple[tuple[str, str], ...] = ()
    """Metadata of every call, for example `x-correlation-id`."""

    def __post_init__(self) -> None:
        if self.key is not None:
            _check("key", self.key)
        for name, value in self.metadata:
            _check(f"metadata `{name}`", value)
            if not _NAME.fullmatch(name):
                raise ValueError(f"the name of the metadata `{name}` may have lower-case letters, digits, `-_.` only")


@dataclass(slots=True)
class CallOptions:
    """What one call sets for itself."""

    timeout: float | None = None
    """Seconds for the call with all its attempts; None for the client's."""
    idempotency_key: str | None = None
    """The key under which the answer is stored; None for a new one."""

    def __post_init__(self) -> None:
        if self.idempotency_key is not None:
            _check("idempotency_key", self.idempotency_key)


def _check(name: str, text: str) -> None:
    """Checks a value of metadata. gRPC's own error would contain all metadata, with the API key.

    Raises:
        ValueError: The value is not printable ASCII, for example because it ends in a line break.
    """
    if not (text and text.isascii() and text.isprintable()):
        raise ValueError(f"the {name} must be printable ASCII without line breaks")


class Call:
    """A call: its deadline, its key, and the decision after each failed attempt.

    A `with` block that is left before the end of the call ends it as cancelled.
    """

    def __init__(self, method: Method, settings: Settings, options: CallOptions) -> None:
        self._settings = settings
        self._name = method.path.removeprefix("/")
        self._started = time.monotonic()
        timeout = settings.timeout if options.timeout is None else options.timeout
        self._deadline = None if timeout in (None, math.inf) else self._started + timeout
        self._has_ended = False
        self.attempt = 1
        observed: Iterable[tuple[str, str]] = ()
        self._observed: Callable[[ParleyError | None], None] | None = None
        if settings.observer is not None:
            observed, self._observed = settings.observer.start(self._name)
        caller = () if settings.key is None else (("authorization", f"Bearer {settings.key}"),)
        key = (("idempotency-key", options.idempotency_key or uuid.uuid4().hex),) if method.is_keyed else ()
        self.metadata = (*caller, *key, *settings.metadata, *observed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._has_ended:
            self.fail(CancelledCallError("the caller has ended the call", grpc.StatusCode.CANCELLED))

    def remaining(self) -> float | None:
        """Returns the seconds until the deadline, for the next attempt; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def failed(self, failure: grpc.RpcError, partial: Any = None, *, retryable: bool = True) -> float:
        """Decides what follows a failed attempt.

        Args:
            failure: The error of gRPC.
            partial: For a stream, what was delivered.
            retryable: Whether another attempt is possible at all.

        Returns:
            The seconds to wait before the next attempt.

        Raises:
            ParleyError: There is no other attempt.
        """
        error = errors.from_rpc_error(failure)
        error.partial = partial
        delay = self._settings.retry.delay(error, self.attempt) if retryable else None
        remaining = self.remaining()
        if delay is None or (remaining is not None and delay >= remaining):
            raise self.fail(error) from failure
        self._log("parley retry", attempt=self.attempt, delay=round(delay, 3), **_error_fields(error))
        self.attempt += 1
        return delay

    def fail(self, error: ParleyError) -> ParleyError:
        """Ends the call with an error; returns it."""
        self._end(error, **_error_fields(error))
        return error

    def succeeded(self, answer: Any = None, metadata: Mapping[str, Any] | None = None) -> None:
        """Ends the call: logs the answer's model, session and usage, and the call's id."""
        fields: dict[str, Any] = {"code": "OK"}
        for name in ("model", "session_id"):
            if getattr(answer, name, None):
                fields[name] = getattr(answer, name)
        if hasattr(answer, "usage"):
            used = answer.usage
            fields |= {"prompt_tokens": used.prompt_tokens, "completion_tokens": used.completion_tokens}
        self._end(None, request_id=(metadata or {}).get("x-request-id"), **fields)

    def _end(self, error: ParleyError | None, **fields: Any) -> None:
        self._has_ended = True
        duration = round((time.monotonic() - self._started) * 1000, 1)
        self._log("parley call", attempts=self.attempt, duration_ms=duration, **fields)
        if self._observed is not None:
            self._observed(error)

    def _log(self, event: str, **fields: Any) -> None:
        if self._settings.log is not None:
            self._settings.log(event, method=self._name, **fields)


def _error_fields(error: ParleyError) -> dict[str, Any]:
    return {"code": error.code.name, "reason": error.reason, "request_id": error.request_id}
