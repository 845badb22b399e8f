"""Errors of the OpenAI backend: formats of compatible servers, codes, rejections, and health checks."""

from typing import Any

import pytest

from parley.backends.openai.backend import OpenAI
from parley.config import HttpHealthCheck
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    ParleyError,
    UpstreamMisconfigured,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.contract.backends import (
    KEY,
    call,
    failure,
)
from tests.upstream import (
    Cut,
    Json,
    Raw,
    ScriptedUpstream,
    Stall,
)


async def test_error_with_status_200(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """An error body with status 200 is an error."""
    upstream.answer({"error": {"message": "please reduce the length of the messages", "code": 400}})
    assert ContextLengthExceeded is type(await failure(backend, call()))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "x", "code": "context_length_exceeded"}}),
        (400, {"error": {"code": 400, "message": "the request exceeds …", "type": "exceed_context_size_error"}}),
        (400, {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400}),
        (400, {"error": {"message": "You passed 9000 input tokens … the model's context length is only 4096"}}),
        (400, {"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}}),
        (422, {"detail": "Prompt contains 9 tokens … too large for model with 8 maximum context length"}),
        (413, {"error": {"message": "Please reduce the length of the messages or completion."}}),
        (400, [{"error": {"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."}}]),
    ],
)
async def test_context_length_messages(backend: OpenAI, upstream: ScriptedUpstream, status: int, body: Any) -> None:
    """Each server's message for an exceeded context is recognized."""
    upstream.answer(Json(body, status))
    assert ContextLengthExceeded is type(await failure(backend, call()))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "no such thing"}, "no such thing"),
        ({"message": "no such thing"}, "no such thing"),
        ({"detail": "no such thing"}, "no such thing"),
        ({"detail": [{"loc": ["body", "n"], "msg": "too big"}]}, "n: too big"),
        ({"error": {"message": "no such thing", "code": ["odd"], "type": {}}}, "no such thing"),
        ("no such thing", "no such thing"),
        ({}, 'The model "myapp-123" refused the request'),
        (None, 'The model "myapp-123" refused the request'),
    ],
)
async def test_rejection_messages(backend: OpenAI, upstream: ScriptedUpstream, body: Any, message: str) -> None:
    """The message of a rejection is found in each server's format."""
    upstream.answer(Json(body, 400))
    failed = await failure(backend, call())
    assert (UpstreamRejected, message) == (type(failed), failed.message)


async def test_rejected_parameter(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The rejected parameter and the code are forwarded."""
    upstream.answer(Json({"error": {"message": "bad", "param": "logit_bias[1]", "code": "unsupported_value"}}, 400))
    failed = await failure(backend, call())
    assert isinstance(failed, UpstreamRejected)
    assert ("logit_bias[1]", "unsupported_value") == (failed.param, failed.code)


@pytest.mark.parametrize(
    ("fault", "kind", "param", "code"),
    [
        ({"code": "content_policy_violation", "param": None}, ContentPolicy, None, "content_policy_violation"),
        ({"code": "content_filter", "param": "prompt"}, ContentPolicy, "prompt", "content_filter"),
        ({"type": "content_filter", "code": 400}, ContentPolicy, None, "content_filter"),
        ({"code": "context_length_exceeded"}, ContextLengthExceeded, "messages", "context_length_exceeded"),
        (
            {"code": "string_above_max_length", "param": "messages[3].content"},
            ContextLengthExceeded,
            "messages[3].content",
            "string_above_max_length",
        ),
    ],
)
async def test_upstream_code(
    backend: OpenAI,
    upstream: ScriptedUpstream,
    fault: dict[str, Any],
    kind: type[UpstreamRejected],
    param: str | None,
    code: str,
) -> None:
    """The code of an error is the upstream's code, or else its type."""
    upstream.answer(Json({"error": {"message": "bad", **fault}}, 400))
    failed = await failure(backend, call())
    assert isinstance(failed, UpstreamRejected)
    assert (kind, param, code) == (type(failed), failed.param, failed.code)


@pytest.mark.parametrize("odd", ["", "a b", "a\r\nb: c", "ü", "x" * 65, KEY, "sk-proj-0815", 7, None, ["a"], {"a": 1}])
async def test_unsafe_codes_are_dropped(backend: OpenAI, upstream: ScriptedUpstream, odd: Any) -> None:
    """Codes and parameters that are not short words, or look like keys, are dropped: they are sent in headers."""
    upstream.answer(Json({"error": {"message": "bad", "param": odd, "code": odd}}, 400))
    failed = await failure(backend, call())
    assert isinstance(failed, UpstreamRejected)
    assert (None, None) == (failed.param, failed.code)


async def test_html_error_page(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """An HTML error page of a proxy is not shown to the caller."""
    page = "<html>nginx at 10.0.0.7</html>"
    upstream.answer(Raw([f"HTTP/1.1 400 Bad\r\nContent-Length: {len(page)}\r\n\r\n{page}"]))
    assert 'The model "myapp-123" refused the request' == (await failure(backend, call())).message


async def test_moderated_with_another_status(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Rejected content is recognized by its code; another 403 means a wrong key."""
    upstream.answer(Json({"error": {"message": "flagged", "code": "content_filter"}}, 403), Json({}, 403))
    assert ContentPolicy is type(await failure(backend, call()))
    assert UpstreamMisconfigured is type(await failure(backend, call()))


async def test_check(upstream: ScriptedUpstream) -> None:
    """A health check succeeds on status 200 of a GET for the configured path, sent with the key."""
    backend = OpenAI(upstream.url, KEY, health=HttpHealthCheck(path="/healthz?deep=1"))
    upstream.answer(Json({"status": "ok"}))
    await backend.check()
    await backend.close()
    received = upstream.requests[0]
    assert ("GET", "/healthz?deep=1", b"") == (received.method, received.path, received.raw)
    assert f"Bearer {KEY}" == received.headers["authorization"]


@pytest.mark.parametrize(
    ("answer", "error", "cause"),
    [
        (Json({"loading": KEY}, 503), UpstreamUnavailable, "HTTP 503"),
        (Json({}, 202), UpstreamUnavailable, "HTTP 202"),
        (Json({}, 302, {"Location": "/elsewhere"}), UpstreamUnavailable, "HTTP 302"),
        (Raw([Cut()]), UpstreamUnavailable, "Disconnected"),
        (Raw([Stall()]), UpstreamTimeout, "no answer within 0.1 s"),
        (Raw(["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Stall()]), UpstreamTimeout, "no answer within"),
    ],
)
async def test_failed_check(
    upstream: ScriptedUpstream, answer: Json | Raw, error: type[ParleyError], cause: str
) -> None:
    """Any other result fails the health check; its cause does not contain the key."""
    backend = OpenAI(upstream.url, KEY, health=HttpHealthCheck(timeout=0.1 if error is UpstreamTimeout else 10))
    upstream.answer(answer)
    with pytest.raises(error) as caught:
        await backend.check()
    await backend.close()
    assert error is type(caught.value)
    assert cause in (caught.value.cause or "")
    assert "/health: " in (caught.value.cause or "")
    assert "loading" not in (caught.value.cause or "")
