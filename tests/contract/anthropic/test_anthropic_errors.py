"""Errors of Anthropic's Messages API, and responses that cannot be parsed."""

from typing import Any

import pytest

from parley.backends.anthropic.backend import Anthropic
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    ParleyError,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
    UpstreamUnreadable,
)
from tests.contract.anthropic_api import (
    error,
    event,
    start,
)
from tests.contract.backends import (
    call,
    failure,
)
from tests.upstream import Events, Json, Raw, ScriptedUpstream


async def test_error_with_status_200(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """An error with status 200 is classified by its type."""
    upstream.answer(error("rate_limit_error", "slow down"))
    assert UpstreamRateLimited is type(await failure(backend, call()))


MISSHAPEN = [
    {"content": [{"type": "text"}]},
    {"content": [{"type": "text", "text": 3}]},
    {"content": [{"type": "tool_use", "id": "c", "name": 3, "input": {}}]},
    {"content": [{"type": "tool_use", "id": "c"}]},
    {"content": [{"type": "thinking", "thinking": 3}]},
    {"content": [{"type": "text", "text": "x"}], "stop_reason": ["x"]},
]


@pytest.mark.parametrize("body", MISSHAPEN)
async def test_malformed_answers(backend: Anthropic, upstream: ScriptedUpstream, body: dict[str, Any]) -> None:
    """A malformed response maps to UpstreamUnreadable and raises no other exception."""
    upstream.answer(body)
    assert UpstreamUnreadable is type(await failure(backend, call()))


@pytest.mark.parametrize(
    ("status", "kind", "message", "expected"),
    [
        (400, "invalid_request_error", "max_tokens: 99999 > 8192", UpstreamRejected),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", ContextLengthExceeded),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 184915 + 20000 > 204648, decrease input length",
            ContextLengthExceeded,
        ),
        (400, "invalid_request_error", "Output blocked by content filtering policy", ContentPolicy),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade.",
            UpstreamQuotaExhausted,
        ),
        (
            400,
            "invalid_request_error",
            "You have reached your specified API usage limits. You will regain access on 2026-12-01.",
            UpstreamQuotaExhausted,
        ),
        (401, "authentication_error", "invalid x-api-key", UpstreamMisconfigured),
        (402, "billing_error", "no", UpstreamQuotaExhausted),
        (403, "permission_error", "no", UpstreamMisconfigured),
        (404, "not_found_error", "model: claude-0", UpstreamMisconfigured),
        (413, "request_too_large", "Request exceeds the maximum size", UpstreamRejected),
        (429, "rate_limit_error", "no", UpstreamRateLimited),
        (500, "api_error", "Internal server error", UpstreamUnavailable),
        (504, "timeout_error", "no", UpstreamUnavailable),
        (529, "overloaded_error", "Overloaded", UpstreamUnavailable),
    ],
)
@pytest.mark.parametrize("in_stream", [False, True])
async def test_errors(
    backend: Anthropic,
    upstream: ScriptedUpstream,
    status: int,
    kind: str,
    message: str,
    expected: type[ParleyError],
    in_stream: bool,
) -> None:
    """Each error of the API maps to its error, as a response and as the first event of a stream."""
    body = error(kind, message)
    upstream.answer(Events([start(), event("error", error=body["error"])]) if in_stream else Json(body, status))
    assert expected is type(await failure(backend, call(), stream=in_stream))


async def test_error_page(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """An HTML error page of a proxy is not shown to the caller."""
    page = "<html>nginx at 10.0.0.7</html>"
    upstream.answer(Raw([f"HTTP/1.1 400 Bad\r\nContent-Length: {len(page)}\r\n\r\n{page}"]))
    assert 'The model "myapp-123" refused the request' == (await failure(backend, call())).message
