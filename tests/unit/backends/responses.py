"""Errors for responses of backends."""

import json
from typing import Any

from parley.backends.errors.classifier import ErrorFactory
from parley.core.errors import (
    UpstreamError,
)

FAILURES = ErrorFactory("sk-our-own-secret")
NOT_AVAILABLE = 'The model "m" is not available; try again later'


def error_for(status: int, body: Any, headers: dict[str, str] | None = None) -> UpstreamError:
    """Returns the error for a response; `body` is serialized as JSON unless it is a string."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return FAILURES.from_response(status, headers or {}, data, "m")


def openai_error(status: int, message: str, **more: Any) -> UpstreamError:
    """Returns the error for a body in OpenAI's format."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return error_for(status, {"error": error | more})
