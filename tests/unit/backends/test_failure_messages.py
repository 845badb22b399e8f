"""Failures that are recognized by the message or the code of an error."""

from typing import Any

import pytest

from parley.backends.errors.body import read
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnrecognized,
)
from parley.core.routing.failure_policy import HealthEffect, NextTargets, Retry, policy_for
from tests.unit.backends.responses import NOT_AVAILABLE, error_for, openai_error


@pytest.mark.parametrize("words", ["a\nb", r"a\ud83db", 'a", "x": NaN, "y": "'], ids=["line feed", "surrogate", "NaN"])
def test_an_error_that_is_not_strict_json_keeps_its_code(words: str) -> None:
    """It is read as tolerantly as an answer."""
    body = f'\ufeff{{"error": {{"message": "{words}", "code": "context_length_exceeded"}}}}'
    assert ContextLengthExceeded is type(error_for(400, body))


TOO_LONG = [
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9120 tokens.",  # OpenAI
    "Your input exceeds the context window of this model. Please adjust your input and try again.",  # OpenAI
    "This endpoint's maximum context length is 1048576 tokens. However, you requested about 1293741",  # OpenRouter
    "prompt is too long: 213462 tokens > 200000 maximum",  # Anthropic
    "input length and `max_tokens` exceed context limit: 184915 + 20000 > 204648",  # Anthropic
    "The decoder prompt (length 9001) is longer than the maximum model length of 4096.",  # vLLM
    "The prompt (total length 9001) is too long to fit into the model (context length 4096).",  # vLLM
    "'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum context length is 4096",  # vLLM
    "The input (61709 tokens) is longer than the model's context length (40960 tokens).",  # SGLang
    "Requested token count exceeds the model's maximum context length of 40960 tokens.",  # SGLang
    "Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens).",  # SGLang
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1244 and 1000",  # TGI
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 1872",  # TGI
    "the request exceeds the available context size, try increasing it",  # llama.cpp
    "prompt too long; exceeded max context length by 812 tokens",  # Ollama
    "the input length exceeds the context length",  # Ollama
    "Trying to keep the first 15857 tokens when context the overflows.",  # LM Studio
    "The number of tokens to keep from the initial prompt is greater than the context length",  # LM Studio
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",  # xAI
    "Please reduce the length of the messages or completion.",  # Groq
    "Please reduce the length of the messages or completion. Current length is 8905 while limit is 8192",  # Cerebras
    "Prompt contains 40124 tokens and 0 draft tokens, too large for model with 32768 maximum context length",  # Mistral
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 6354.",  # Cohere
    "too many tokens: size limit exceeded by 11326 tokens.",  # Cohere
    "The prompt is too long: 9001, model maximum context length: 8191",  # Fireworks
    "Invalid request: Your request exceeded model token limit: 131072 (requested: 140201)",  # Moonshot
    "model max length exceeded, max length:8192",  # Moonshot
    "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",  # Gemini
    "Input is too long for requested model.",  # Bedrock
    "Too many input tokens. Max input tokens: 8192, request input token count: 9001",  # Bedrock
    "prompt token count of 140201 exceeds the limit of 128000",  # GitHub Copilot
    "invalid params, context window exceeds limit",  # MiniMax
    "Range of input length should be [1, 30720]",  # DashScope
    "the number of input tokens 5000 cannot exceed the total tokens limit 4096 for this model",  # watsonx
    "Invalid 'messages[0].content': string too long. Expected a string with maximum length 1048576.",  # OpenAI
]


@pytest.mark.parametrize("message", TOO_LONG)
@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_context_length_messages(message: str, status: int) -> None:
    """Only fallbacks are tried after an exceeded context, whatever the status, and the caller sees the message."""
    failed = openai_error(status, message)
    assert isinstance(failed, ContextLengthExceeded)
    assert (NextTargets.FALLBACKS, HealthEffect.SUCCESS) == (policy_for(failed).next, policy_for(failed).health_effect)
    assert "messages" == (failed.param or "").split("[")[0]
    assert failed.message
    assert failed.code is None


QUOTAS: list[tuple[int, Any, str]] = [
    (
        429,
        {"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}},
        "insufficient_quota",
    ),
    (429, {"error": {"message": "You exceeded your current quota, please check your plan"}}, "insufficient_quota"),
    (400, {"error": {"message": "Billing hard limit has been reached", "code": "billing_hard_limit_reached"}}, ""),
    (
        402,
        {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}},
        "?",
    ),
    (402, {"error": {"message": "Insufficient credits. Add more at https://openrouter.ai", "code": 402}}, ""),
    (402, "", ""),
    (403, {"error": {"message": "Your account org-1<ak-2> is not active", "type": "exceeded_current_quota_error"}}, ""),
    (403, "Your team 16f2151a has either used all available credits or reached its monthly spending limit.", ""),
    (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}},
        "",
    ),
    (429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota"}}, ""),
    (
        429,
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota, please check your plan and billing details.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [
                        {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
                        {"retryDelay": "34s"},
                    ],
                }
            }
        ],
        "",
    ),
]


@pytest.mark.parametrize(("status", "body", "code"), QUOTAS)
def test_exhausted_quota(status: int, body: Any, code: str) -> None:
    """An exhausted quota is not retried at the same target, and its message is not shown to the caller."""
    failed = error_for(status, body)
    assert isinstance(failed, UpstreamQuotaExhausted)
    assert (Retry.NO, NextTargets.ANY) == (policy_for(failed).retry, policy_for(failed).next)
    assert failed.retry_after is None
    assert not any(word in failed.message for word in ("billing", "org-", "team", "credit", "http"))
    if code != "?":
        assert failed.code in {code, "billing_hard_limit_reached", "exceeded_current_quota_error", "insufficient_quota"}


def test_gemini_rate_limit() -> None:
    """Gemini's quota message with a delay is a rate limit."""
    error = {
        "code": 429,
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "details": [{"violations": [{"quotaId": "GenerateRequestsPerMinutePerProject"}]}, {"retryDelay": "7s"}],
    }
    failed = error_for(429, {"error": error})
    assert (UpstreamRateLimited, 7.0) == (type(failed), failed.retry_after)
    failed = openai_error(429, "You exceeded your current quota. Please retry in 20.5s.")
    assert (UpstreamRateLimited, 20.5) == (type(failed), failed.retry_after)


OPERATOR: list[tuple[int, str]] = [
    (400, "Incorrect API key provided: xa***in. You can obtain an API key from https://console.x.ai."),
    (400, "API key not valid. Please pass a valid API key."),
    (400, "API key expired. Please renew the API key."),
    (400, "User location is not supported for the API use."),
    (400, "The model `mixtral-8x7b-32768` has been decommissioned and is no longer supported."),
    (400, "The model `x` does not exist or you do not have access to it."),
    (400, "meta-llama/llama-2-13b is not a valid model ID"),
    (400, "The API deployment for this resource does not exist."),
    (400, "Invocation of model ID x with on-demand throughput isn't supported."),
    (400, "The provided model identifier is invalid."),
    (400, "Your organization must be verified to stream this model."),
    (400, "This model is only available on the Scale plan"),
    (422, "Your workspace has no access to this"),
    (403, "Country, region, or territory not supported"),
    (404, "No endpoints found for x/y."),
]


@pytest.mark.parametrize(("status", "message"), OPERATOR)
def test_misconfiguration(status: int, message: str) -> None:
    """A misconfiguration is logged, the next target is tried, and one caller alone does not open the breaker."""
    failed = openai_error(status, message)
    assert (UpstreamMisconfigured, NOT_AVAILABLE) == (type(failed), failed.message)
    assert (NextTargets.ANY, HealthEffect.SUSPECT) == (policy_for(failed).next, policy_for(failed).health_effect)


@pytest.mark.parametrize(
    ("message", "more"),
    [
        ("Failed to call a function. Please adjust your prompt.", {"code": "tool_use_failed"}),
        ("tool call validation failed: parameters for tool f did not match schema", {}),
        ("Failed to generate JSON. Please adjust your prompt.", {"code": "json_validate_failed"}),
        ("Tool generation failed", {}),
        ("Provider returned error", {"type": None}),
    ],
)
def test_provider_fault(message: str, more: dict[str, Any]) -> None:
    """Unusable output of a model is not the caller's fault, even with status 400."""
    failed = openai_error(400, message, **more)
    assert (UpstreamUnrecognized, NOT_AVAILABLE) == (type(failed), failed.message)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "filtered", "code": "content_filter"}}),
        (400, {"error": {"message": "f", "code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
        (403, {"error": {"code": 403, "message": "x requires moderation. Your input was flagged"}}),
        (400, {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}),
        (
            400,
            {"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT", "details": [{"reason": "SAFETY"}]}},
        ),
        (400, {"code": "DataInspectionFailed", "message": "Input data may contain inappropriate content."}),
        (403, {"code": "x", "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}),
    ],
)
def test_rejected_content(status: int, body: Any) -> None:
    """Rejected content is not sent to another target, and the caller sees the provider's message."""
    failed = error_for(status, body)
    assert isinstance(failed, ContentPolicy)
    assert (NextTargets.NONE, HealthEffect.SUCCESS) == (policy_for(failed).next, policy_for(failed).health_effect)
    assert failed.message == read(body).message


def test_invalid_request() -> None:
    """A request is invalid only if the error names one of its fields or lists validation results."""
    for body in (
        {"error": {"message": "Invalid value", "param": "temperature", "code": "invalid_value"}},
        {"error": {"message": "bad", "param": "messages[0].role", "code": None}},
        {"detail": [{"loc": ["body", "n"], "msg": "too big", "input": "secret prompt"}]},
    ):
        failed = error_for(400, body)
        assert isinstance(failed, UpstreamRejected)
        assert (NextTargets.NONE, HealthEffect.SUCCESS) == (policy_for(failed).next, policy_for(failed).health_effect)
        assert failed.param in {"temperature", "messages[0].role", "n"}
        assert "secret prompt" not in f"{failed.message} {failed.cause}"


def test_unsupported_parameter() -> None:
    """An unsupported parameter is tried at the next target."""
    failed = openai_error(400, "Unsupported parameter: 'max_tokens'", param="max_tokens", code="unsupported_parameter")
    assert isinstance(failed, UpstreamRejected)
    assert (NextTargets.ANY, "max_tokens") == (policy_for(failed).next, failed.param)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("Field 'n': Value must be between 1 <= value <= 4", "n"),
        ("max_tokens: 300000 > 8192, which is the maximum allowed number of output tokens", "max_tokens"),
        ("temperature must be non-negative, got -1.0.", "temperature"),
        ("messages.0.content: field required", "messages.0.content"),
        ("`top_p` should be in (0, 1]", "top_p"),
        ("Invalid 'messages[1].role'", "messages[1].role"),
        ("Unsupported parameter: 'reasoning_format' is not known", "reasoning_format"),
        ("this model does not like it", None),
        ("role must be 'user'", None),
    ],
)
def test_field_named_in_the_message(message: str, param: str | None) -> None:
    """A field that is named only in the message is found."""
    failed = openai_error(400, message)
    assert isinstance(failed, UpstreamRejected)
    assert param == failed.param


def test_oversized_request() -> None:
    """A request over the rate limit's size is not retried, and is no failure of the target."""
    for status in (413, 429):
        failed = openai_error(
            status, "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 9000"
        )
        assert isinstance(failed, UpstreamRateLimited)
        assert (Retry.NO, NextTargets.ANY, HealthEffect.NEUTRAL) == (
            policy_for(failed).retry,
            policy_for(failed).next,
            policy_for(failed).health_effect,
        )
        assert "6000" not in failed.message
    assert isinstance(openai_error(413, "x", code="rate_limit_exceeded", type="tokens"), UpstreamRateLimited)
