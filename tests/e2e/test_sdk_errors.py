"""Failures in OpenAI's Python package: classes, fields and retries."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from parley.core.sessions.idempotency import LEASE_SECONDS
from tests.e2e import vendor
from tests.processes import Parley
from tests.upstream import Cut, Events, Gate, Json, ScriptedUpstream

REQUEST: Any = {"model": "scripted", "messages": [{"role": "user", "content": "Hello!"}]}
TYPES = {400: "invalid_request_error", 429: "rate_limit_error", 503: "server_error"}


@pytest.fixture(scope="session")
def clients(stack: Parley) -> Iterator[Callable[..., openai.OpenAI]]:
    """Creates clients of the package with the given options."""
    made: list[openai.OpenAI] = []

    def make(**options: Any) -> openai.OpenAI:
        made.append(
            openai.OpenAI(**{"base_url": f"{stack.http}/v1", "api_key": stack.key, "max_retries": 0, **options})
        )
        return made[-1]

    yield make
    for client in made:
        client.close()


# The request, and the class, status, type, code and param of its error.
REFUSED: dict[str, tuple[dict[str, Any], type[openai.APIStatusError], int, str, str | None, str | None]] = {
    "an unknown model": (
        {"model": "gpt-9"},
        openai.NotFoundError,
        404,
        "invalid_request_error",
        "model_not_found",
        "model",
    ),
    "an unknown session": (
        {"extra_body": {"session_id": "01234567-89ab-7def-8123-456789abcdef"}},
        openai.NotFoundError,
        404,
        "invalid_request_error",
        "session_not_found",
        "chatSessionId",
    ),
    "a value out of range": (
        {"temperature": 3},
        openai.BadRequestError,
        400,
        "invalid_request_error",
        "invalid_request",
        "temperature",
    ),
    "a value of the wrong type": (
        {"max_tokens": "many"},
        openai.BadRequestError,
        400,
        "invalid_request_error",
        "invalid_request",
        "max_tokens",
    ),
    "a field of a message": (
        {"messages": [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]},
        openai.BadRequestError,
        400,
        "invalid_request_error",
        "invalid_request",
        "messages[1].role",
    ),
    "a character that cannot be stored": (
        {"messages": [{"role": "user", "content": "a\0b"}]},
        openai.BadRequestError,
        400,
        "invalid_request_error",
        "invalid_request",
        "messages[0].content",
    ),
}


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("what", REFUSED)
def test_a_rejected_request_has_its_class_and_fields(
    clients: Callable[..., openai.OpenAI], upstream: ScriptedUpstream, what: str, is_stream: bool
) -> None:
    """The error has message, type, code, param and the request id; the package does not retry."""
    sent, kind, status, error_type, code, param = REFUSED[what]
    with pytest.raises(kind) as caught:
        clients(max_retries=5).chat.completions.create(**{**REQUEST, **sent}, stream=is_stream)
    error = caught.value
    assert (status, error_type, code, param) == (error.status_code, error.type, error.code, error.param)
    assert error.response.headers["x-request-id"] == error.request_id
    assert {"message", "type", "param", "code"} == set(error.body or {})  # type: ignore[call-overload]
    assert "false" == error.response.headers["x-should-retry"]
    assert [] == upstream.requests


@pytest.mark.parametrize("key", ["sk-wrong", None], ids=["a wrong key", "no key"])
def test_a_missing_or_wrong_key_is_an_authentication_error(
    clients: Callable[..., openai.OpenAI], key: str | None
) -> None:
    """The message distinguishes a missing from a wrong key; the package does not retry."""
    headers = {"Authorization": f"Bearer {key}" if key else openai.Omit()}
    with pytest.raises(openai.AuthenticationError, match="Invalid API key" if key else "Missing API key") as caught:
        clients(max_retries=5).chat.completions.create(**REQUEST, extra_headers=headers)
    assert ("invalid_request_error", "invalid_api_key") == (caught.value.type, caught.value.code)
    assert "false" == caught.value.response.headers["x-should-retry"]


TOO_LONG = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
FAILED: dict[str, tuple[Json, type[openai.APIStatusError], int, str, bool]] = {
    "too many requests": (
        Json(vendor.error("Slow down", "requests"), 429, {"Retry-After": "1"}),
        openai.RateLimitError,
        429,
        "rate_limit_exceeded",
        True,
    ),
    "a failure": (
        Json(vendor.error("The server had an error", "server_error"), 500),
        openai.InternalServerError,
        503,
        "upstream_unavailable",
        True,
    ),
    "overload": (
        Json(vendor.error("Overloaded", "server_error"), 503, {"Retry-After": "1"}),
        openai.InternalServerError,
        503,
        "upstream_unavailable",
        True,
    ),
    "our own wrong key": (
        Json(vendor.error("Incorrect API key provided: sk-1234", code="invalid_api_key"), 401),
        openai.InternalServerError,
        503,
        "upstream_unavailable",
        True,
    ),
    "a refusal": (
        Json(vendor.error("Unsupported value", param="verbosity", code="unsupported_value"), 400),
        openai.BadRequestError,
        400,
        "unsupported_value",
        False,
    ),
    "refused content": (
        Json(vendor.error("Flagged", param="prompt", code="content_policy_violation"), 400),
        openai.BadRequestError,
        400,
        "content_policy_violation",
        False,
    ),
    "a refusal without a code": (
        Json(vendor.error("No"), 400),
        openai.BadRequestError,
        400,
        "upstream_rejected",
        False,
    ),
    "too many requests for hours": (
        Json(vendor.error("Slow down", "requests"), 429, {"Retry-After": "7200"}),
        openai.RateLimitError,
        429,
        "rate_limit_exceeded",
        False,
    ),
    "too long a context": (
        Json(vendor.error(TOO_LONG, param="messages", code="context_length_exceeded"), 400),
        openai.BadRequestError,
        400,
        "context_length_exceeded",
        False,
    ),
}


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("what", FAILED)
def test_a_failing_upstream_has_its_class(
    clients: Callable[..., openai.OpenAI], upstream: ScriptedUpstream, what: str, is_stream: bool
) -> None:
    """A failure of the upstream has the class of OpenAI's failures; messages about the operator's key are hidden."""
    answer, kind, status, code, again = FAILED[what]
    upstream.answer(answer)
    with pytest.raises(kind) as caught:
        clients().chat.completions.create(**REQUEST, stream=is_stream)
    error, headers = caught.value, caught.value.response.headers
    assert (status, code, TYPES[status]) == (error.status_code, error.code, error.type)
    assert str(again).lower() == headers["x-should-retry"]
    assert answer.headers.get("Retry-After", "1" if again else None) == headers.get("retry-after")
    if kind is openai.BadRequestError:
        assert answer.body["error"]["param"] == error.param
    assert "sk-1234" not in error.response.text


@pytest.mark.parametrize("what", ["too many requests", "overload", "a refusal", "too many requests for hours"])
def test_the_package_retries_by_the_headers(
    clients: Callable[..., openai.OpenAI], upstream: ScriptedUpstream, what: str
) -> None:
    """429 and 503 are retried after a short `Retry-After` of the upstream; 400 and a long delay are not."""
    answer, kind, _, _, again = FAILED[what]
    upstream.answer(answer, vendor.complete_answer())
    client = clients(max_retries=1)
    if again:
        assert client.chat.completions.create(**REQUEST).choices[0].message.content
    else:
        with pytest.raises(kind):
            client.chat.completions.create(**REQUEST)
    assert 1 + again == len(upstream.requests)


def test_a_busy_session_is_a_retried_conflict(
    clients: Callable[..., openai.OpenAI], upstream: ScriptedUpstream
) -> None:
    """A concurrent turn is a 409; the package retries after the other call's lease and succeeds."""
    gate, seen = Gate(), []
    first = clients().chat.completions.create(**REQUEST)
    session: Any = {"extra_headers": {"x-chat-session-id": str((first.model_extra or {})["chatSessionId"])}}

    def note(response: Any) -> None:
        seen.append((response.status_code, response.headers.get("x-should-retry"), response.headers.get("retry-after")))
        gate.set()

    upstream.answer(Events([gate, *vendor.text("Slow").events]))
    slow = threading.Thread(target=lambda: list(clients().chat.completions.create(**REQUEST, **session, stream=True)))
    slow.start()
    upstream.received(1)
    hasty = clients(max_retries=5, http_client=openai.DefaultHttpxClient(event_hooks={"response": [note]}))
    assert "Hello there." == hasty.chat.completions.create(**REQUEST, **session).choices[0].message.content
    slow.join()
    status, is_retried, delay = seen[0]
    assert (409, "true") == (status, is_retried)
    assert 1 < int(delay) <= LEASE_SECONDS
    assert 200 == seen[-1][0]
    assert 3 == len(upstream.requests)


@pytest.mark.parametrize("event", [vendor.error("Boom", "server_error"), Cut()], ids=["error event", "cut"])
def test_a_stream_that_breaks_raises(
    clients: Callable[..., openai.OpenAI], upstream: ScriptedUpstream, event: Any
) -> None:
    """The text before the failure is delivered, then the package raises its error."""
    upstream.answer(Events([*list(vendor.text("Hel", "lo").events)[:3], event]))
    chunks = clients(max_retries=5).chat.completions.create(**REQUEST, stream=True)
    texts: list[str | None] = []
    with pytest.raises(openai.APIError) as caught:
        texts.extend(chunk.choices[0].delta.content for chunk in chunks)
    assert "Hello" == "".join(text or "" for text in texts)
    assert ("server_error", "stream_broken") == (caught.value.type, caught.value.code)
    assert "broke off" in caught.value.message
    assert 1 == len(upstream.requests)
