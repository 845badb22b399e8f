"""Converts failures of providers of any-llm-sdk to domain errors.

Status and body of the provider are classified like those of an OpenAI server. If they are not specific enough, the
package's own exception type decides.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson
from any_llm import exceptions as any_llm
from pydantic import ValidationError

from parley.backends.errors import classifier, local_resources
from parley.backends.errors.classifier import SHAPE_ERRORS, ErrorFactory
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    ParleyError,
    UnsupportedParameter,
    UpstreamError,
    UpstreamQuotaExhausted,
    UpstreamRejected,
)

_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_MISCONFIGURED = any_llm.AuthenticationError, any_llm.MissingApiKeyError, any_llm.ModelNotFoundError
_FIRST_REFUSAL = 300  # statuses from here on are failures, redirects included


class ProviderErrorFactory(ErrorFactory):
    """Creates the errors of one provider; its API key is redacted from each."""

    __slots__ = ()

    def from_provider(self, error: Exception, model: str, *, started: bool = False) -> ParleyError:
        """Returns the error for an exception of the package; `started`: the first token had arrived."""
        original = getattr(error, "original_exception", None) or error
        upstream_error = self._from_exception(error, original, model, type(original).__name__, started=started)
        if isinstance(upstream_error, UpstreamError):
            upstream_error.detail = upstream_error.detail or self.redact(f"{type(original).__name__}: {error}")
        return upstream_error

    def _from_exception(
        self, error: Exception, original: Exception, model: str, cause: str, *, started: bool
    ) -> ParleyError:
        if started:
            return classifier.broken(model, cause)
        unsupported = _unsupported(error, original)
        if unsupported:
            message = f'`{unsupported}` is not supported by the model "{model}"'
            return UnsupportedParameter(message, param=unsupported, cause=cause)
        if isinstance(error, ValidationError):
            return self._invalid(error, model, cause)
        return self._from_answer(error, original, model, cause)

    def _from_answer(self, error: Exception, original: Exception, model: str, cause: str) -> ParleyError:
        status, error_body = getattr(error, "status_code", None), _error_body(error, original)
        if isinstance(status, int) and status >= _FIRST_REFUSAL:
            upstream_error: ParleyError = self.from_response(
                status, _headers(error, original), orjson.dumps({"error": error_body}), model
            )
            return self._refine(upstream_error, error)
        body = getattr(original, "body", None)
        if isinstance(body, dict) and (status is None or body.get("error")):  # an error event of a stream
            return self.from_event({"error": error_body}, model, started=False)
        if isinstance(status, int) or isinstance(original, SHAPE_ERRORS) or type(original) is any_llm.ProviderError:
            return classifier.unreadable(model, cause)  # the package could not parse a response
        return local_resources.find(original) or self._by_kind(error, original, model, cause)

    def _refine(self, upstream_error: ParleyError, error: Exception) -> ParleyError:
        """Refines a rejection by the package's exception type if the provider's code is not specific."""
        if type(upstream_error) is not UpstreamRejected:
            return upstream_error
        kind = _rejection(error)
        if kind is UpstreamRejected:
            return upstream_error
        return kind(
            upstream_error.message, param=upstream_error.param, code=upstream_error.code, cause=upstream_error.cause
        )

    def _by_kind(self, error: Exception, original: Exception, model: str, cause: str) -> ParleyError:
        if isinstance(error, any_llm.RateLimitError):
            return classifier.rate_limited(model, classifier.retry_after(_headers(error, original)), cause)
        if isinstance(error, any_llm.InsufficientFundsError):
            return UpstreamQuotaExhausted(model, cause=cause)
        if isinstance(error, _MISCONFIGURED):
            return classifier.misconfigured(model, cause)
        if isinstance(error, any_llm.GatewayTimeoutError) or "timeout" in type(original).__name__.lower():
            return classifier.timed_out(model, cause)
        rejections = any_llm.InvalidRequestError, any_llm.ContextLengthExceededError, any_llm.ContentFilterError
        if isinstance(error, rejections):
            return _rejection(error)(self.message_for_caller(str(original), model), cause=cause)
        return classifier.unavailable(model, cause)

    def _invalid(self, error: ValidationError, model: str, cause: str) -> ParleyError:
        """Returns the error for a failed validation of the request (`CompletionParams`) or of the response."""
        if error.title != "CompletionParams":
            return classifier.unreadable(model, cause)
        first = error.errors(include_url=False, include_input=False)[0]
        param = self._safe_token(".".join(str(part) for part in first["loc"]))
        return UpstreamRejected(f"`{param or 'request'}`: {first['msg']}", param=param, cause=cause)


def _rejection(error: Exception) -> type[UpstreamRejected]:
    if isinstance(error, any_llm.ContextLengthExceededError):
        return ContextLengthExceeded
    return ContentPolicy if isinstance(error, any_llm.ContentFilterError) else UpstreamRejected


def _unsupported(error: Exception, original: Exception) -> str | None:
    """Returns the parameter that the provider or its package does not support, if any."""
    if isinstance(error, any_llm.UnsupportedParameterError):
        return error.parameter_name
    if isinstance(error, NotImplementedError):
        return "stream" if "stream" in str(error).lower() else "model"
    unexpected = _UNEXPECTED.search(str(original)) if isinstance(original, TypeError) else None
    return unexpected.group(1) if unexpected else None


def _error_body(error: Exception, original: Exception) -> dict[str, Any]:
    """Returns the provider's error in the format of OpenAI's errors."""
    body = getattr(original, "body", None)
    inner = body.get("error") if isinstance(body, dict) else None
    error_body = dict(inner if isinstance(inner, dict) else body) if isinstance(body, dict) else {}
    for name, attribute in (("message", "message"), ("code", "code"), ("type", "error_type"), ("param", "param")):
        if not error_body.get(name):
            error_body[name] = getattr(error, attribute, None)
    return error_body


def _headers(error: Exception, original: Exception) -> Mapping[str, str]:
    headers = getattr(getattr(original, "response", None), "headers", None)
    if isinstance(headers, Mapping):
        return headers
    wait = getattr(error, "retry_after", None)
    return {"Retry-After": str(wait)} if wait is not None else {}
