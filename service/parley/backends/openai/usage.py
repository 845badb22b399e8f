"""Parses the usage of a response, in OpenAI's JSON and its dialects."""

import math
from collections.abc import Mapping
from typing import Any

from parley.backends.lenient_json import MAX_COUNT, Source, count, struct
from parley.core.messages import extra_fields
from parley.core.messages.text_completion import TokenCounts, usage_message
from parley.v1.message_pb2 import CompletionTokensDetails, PromptTokensDetails, Usage

# `cost_details` is also kept in `extra_json`, with exact numbers.
_FIELDS = frozenset(field.json_name for field in Usage.DESCRIPTOR.fields) - {"extra", "extra_json", "cost_details"}
_BASIC_FIELDS = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
_OTHER_NAMES = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
_DEEPSEEK = ("prompt_cache_hit_tokens", "prompt_cache_miss_tokens")
_DETAILS = (("prompt_tokens_details", PromptTokensDetails), ("completion_tokens_details", CompletionTokensDetails))
_COUNTS = {
    kind: frozenset(field.name for field in kind.DESCRIPTOR.fields) - {"extra", "extra_json"} for _, kind in _DETAILS
}


def usage(data: Any, source: Source, *path: str | int) -> Usage | None:
    """Parses a usage.

    Invalid numbers are ignored; a missing count is derived from the other two. If the total exceeds the sum of its
    parts, the difference is reasoning tokens (xAI, Gemini), which count as completion tokens.

    Args:
        data: The parsed JSON of the usage.
        source: The document that contains it, for the exact text of unknown fields.
        *path: Path of the usage in the document.

    Returns:
        The usage; None if no count is known.
    """
    if not isinstance(data, dict):
        return None
    if (counts := usual_counts(data)) is not None:
        return usage_message(counts)
    prompt, produced = _count(data, "prompt_tokens"), _count(data, "completion_tokens")
    total = count(data.get("total_tokens"))
    if total is not None:
        if prompt is None and produced is not None and total >= produced:
            prompt = total - produced
        if prompt is not None and total > prompt + (produced or 0):
            produced = total - prompt
    if not (prompt or produced):
        return None
    read = Usage(prompt_tokens=prompt, completion_tokens=produced)
    if prompt is not None and produced is not None:
        read.total_tokens = min(prompt + produced, MAX_COUNT)
    if not data.keys() <= _BASIC_FIELDS:
        _add_rest(read, data, source, *path)
    return read


def usual_counts(data: Any) -> TokenCounts | None:
    """Fast path: returns the counts of a usage that has three which fit together, and nothing else; else None."""
    if data.__class__ is not dict or len(data) != 3:  # noqa: PLR2004 - the counts
        return None
    prompt, produced, total = data.get("prompt_tokens"), data.get("completion_tokens"), data.get("total_tokens")
    if not (prompt.__class__ is produced.__class__ is total.__class__ is int):
        return None
    if prompt <= 0 or produced <= 0 or prompt + produced != total or total > MAX_COUNT:
        return None
    return TokenCounts(prompt, produced, total)


def _count(data: Mapping[str, Any], name: str) -> int | None:
    value = data.get(name)
    return count(data.get(_OTHER_NAMES[name]) if value is None else value)


def _add_rest(read: Usage, data: Mapping[str, Any], source: Source, *path: str | int) -> None:
    for name in _DEEPSEEK:
        if (number := count(data.get(name))) is not None:
            setattr(read, name, number)
    cost = data.get("cost")
    if isinstance(cost, int | float) and not isinstance(cost, bool) and math.isfinite(cost):
        read.cost = cost
    if (details := struct(data.get("cost_details"))) is not None:
        read.cost_details.CopyFrom(details)
    for name, kind in _DETAILS:
        if isinstance(details := data.get(name), dict) and details:
            getattr(read, name).CopyFrom(_details(details, kind, source, *path, name))
    if fields := source.unknown(data, _FIELDS, *path):
        read.extra_json = extra_fields.dumps(fields)


def _details(data: Mapping[str, Any], kind: Any, source: Source, *path: str | int) -> Any:
    counts = {name: count(data.get(name)) for name in _COUNTS[kind]}
    read = kind(**counts)
    if fields := source.unknown(data, _COUNTS[kind], *path):
        read.extra_json = extra_fields.dumps(fields)
    return read
