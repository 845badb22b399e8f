"""Why an answer ended: the words of vendors, and OpenAI's words for them.

Only a reason that is known to be good ends an answer well. A word that no table has is a failure, as is every word for
one.
"""

from typing import Any

from parley.backends.errors.classifier import MalformedResponse

STOP, LENGTH, TOOL_CALLS, FUNCTION_CALL, CONTENT_FILTER = (
    "stop",
    "length",
    "tool_calls",
    "function_call",
    "content_filter",
)

_SYNONYMS: dict[str, tuple[str, ...]] = {
    STOP: (
        STOP,  # OpenAI; Gemini writes it in capitals
        "eos",  # Together: the end-of-sequence token
        "eos_token",  # TGI
        "stop_sequence",  # TGI, Anthropic
        "stop_token",  # Fireworks
        "stop_string",
        "end_turn",  # Anthropic, xAI
        "complete",  # Cohere
        "completed",  # OpenAI Responses
        "end",
    ),
    LENGTH: (
        LENGTH,  # OpenAI
        "max_tokens",  # Anthropic, Cohere, Gemini, xAI
        "max_length",  # xAI
        "max_output_tokens",  # OpenAI Responses
        "max_completion_tokens",
        "model_length",  # Mistral: the model's window is full
        "max_context",  # xAI
        "model_context_window_exceeded",  # Anthropic
        "pause_turn",  # Anthropic: the vendor's own tools were stopped in mid-turn; there would be more
        "time_limit",  # xAI
    ),
    TOOL_CALLS: (
        TOOL_CALLS,  # OpenAI
        "tool_call",  # Cohere
        "tool_use",  # Anthropic
        "tool_calling",
    ),
    FUNCTION_CALL: (FUNCTION_CALL,),  # OpenAI, deprecated
    CONTENT_FILTER: (
        CONTENT_FILTER,  # OpenAI
        "content_filtered",  # Bedrock
        "guardrail_intervened",  # Bedrock
        "refusal",  # Anthropic
        "safety",  # Gemini, and the next ones: its enumeration passes through its OpenAI endpoint
        "recitation",
        "blocklist",
        "prohibited_content",
        "spii",
        "image_safety",
        "image_prohibited_content",
        "image_recitation",
        "sensitive",  # Zhipu
    ),
}
CALLS = frozenset({TOOL_CALLS, FUNCTION_CALL})
"""The reasons that only an answer with calls can have."""

MAY_BE_EMPTY = frozenset({LENGTH, CONTENT_FILTER})
"""The reasons with which an answer may end well though it says nothing."""

_KNOWN = {word: reason for reason, words in _SYNONYMS.items() for word in words}

_NOT_YET = frozenset({"null", "none", "not_finished", "in_progress", "finish_reason_unspecified", "unspecified"})
"""Words that stand where `null` belongs, in chunks of an answer that goes on."""

_FAILED = frozenset(
    {
        "error",  # OpenRouter, Mistral, vLLM
        "error_toxic",  # Cohere
        "abort",  # vLLM, SGLang: the engine gave the request up
        "aborted",
        "cancelled",
        "insufficient_system_resource",  # DeepSeek
        "network_error",  # Zhipu
        "failed",
        "timeout",
    }
)
"""Words for a failure. None of them is a placeholder: the answer ends there."""


def is_failure(raw: Any) -> bool:
    """Tells whether this reason says that the answer has failed."""
    return isinstance(raw, str) and raw.lower() in _FAILED


def normalized(raw: Any) -> str | None:
    """Returns a reason as the vendor words it, in small letters; None for a placeholder."""
    if isinstance(raw, dict):  # SGLang: {"type": "stop", "matched": 2}
        raw = raw.get("type")
    if not raw:
        return None
    reason_text = str(raw).strip().lower().replace("-", "_")
    return None if reason_text in _NOT_YET else reason_text


def to_openai(reason_text: str) -> str:
    """Returns the reason that `normalized` has read, in OpenAI's words.

    Raises MalformedResponse for one that is not a good one.
    """
    known = _KNOWN.get(reason_text) or _KNOWN.get(
        reason_text.partition(":")[0]
    )  # Gemini: `content_filter: PROHIBITED_CONTENT`
    if known is None:
        raise MalformedResponse(f"the answer ended with the finish_reason {reason_text[:64]!r}")
    return known
