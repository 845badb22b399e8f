"""Finish reasons of vendors, mapped to OpenAI's.

Only a known reason completes an answer. An unknown reason is a failure, as is every reason that names one.
"""

import re
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
        "model_length",  # Mistral: the context window is full
        "max_context",  # xAI
        "model_context_window_exceeded",  # Anthropic
        "pause_turn",  # Anthropic: a turn with the vendor's own tools is paused, and the answer is not complete
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
        "safety",  # Gemini, with the next seven: its OpenAI endpoint returns its own enumeration
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
"""Reasons that require an answer with calls."""

MAY_BE_EMPTY = frozenset({LENGTH, CONTENT_FILTER})
"""Reasons that complete an answer without output."""

_KNOWN = {word: reason for reason, words in _SYNONYMS.items() for word in words}

_NOT_YET = frozenset({"null", "none", "not_finished", "in_progress", "finish_reason_unspecified", "unspecified"})
"""Placeholders for `null`, in chunks before the last."""

_FAILED = frozenset(
    {
        "error",  # OpenRouter, Mistral, vLLM
        "error_toxic",  # Cohere
        "abort",  # vLLM, SGLang: the engine aborted the request
        "aborted",
        "cancelled",
        "insufficient_system_resource",  # DeepSeek
        "network_error",  # Zhipu
        "failed",
        "timeout",
    }
)
"""Reasons that name a failure. None is a placeholder: the answer ends."""


def is_failure(raw: Any) -> bool:
    """Reports whether a reason names a failure."""
    return isinstance(raw, str) and raw.lower() in _FAILED


def normalized(raw: Any) -> str | None:
    """Returns a vendor's reason in lower case, with underscores; None for a placeholder."""
    if isinstance(raw, dict):  # SGLang: {"type": "stop", "matched": 2}
        raw = raw.get("type")
    if not raw:
        return None
    reason_text = str(raw).strip().lower().replace("-", "_")
    return None if reason_text in _NOT_YET else reason_text


_WORD = re.compile(r"[A-Za-z_:]{1,40}")


def quoted(raw: Any) -> str:
    """Returns a finish reason for the log, if it is a word."""
    return repr(raw) if isinstance(raw, str) and _WORD.fullmatch(raw) else "that is no word"


def to_openai(reason_text: str) -> str:
    """Returns OpenAI's reason for one that `normalized` returned. Raises MalformedResponse for an unknown one."""
    known = _KNOWN.get(reason_text) or _KNOWN.get(
        reason_text.partition(":")[0]
    )  # Gemini: `content_filter: PROHIBITED_CONTENT`
    if known is None:
        raise MalformedResponse(f"the answer ended with the finish_reason {quoted(reason_text)}")
    return known
