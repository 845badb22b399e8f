"""The usage of attempts, reported or estimated, and its price."""

from collections.abc import Iterable, Sequence

from google.protobuf.descriptor import FieldDescriptor

from parley.config import Price
from parley.core.messages.text_completion import TokenCounts, usage_message
from parley.core.usage.tokens import estimate_tokens, message_tokens
from parley.v1.message_pb2 import Message, Usage

_MILLION = 1_000_000
_MAX_COUNT = 2**32 - 1  # counts are uint32 fields


def estimate(prompt: Iterable[Message], size: int) -> Usage:
    """Estimates the usage of an answer of `size` bytes of text."""
    usage = Usage(prompt_tokens=sum(map(message_tokens, prompt)), completion_tokens=estimate_tokens(size))
    return with_total(usage)


def is_complete(usage: Usage | TokenCounts | None) -> bool:
    """Reports whether a usage has the tokens of the prompt and of the answer."""
    if usage is None or isinstance(usage, TokenCounts):
        return usage is not None
    return usage.HasField("prompt_tokens") and usage.HasField("completion_tokens")


def with_estimates(reported: Usage | TokenCounts | None, prompt: Iterable[Message], size: int) -> Usage:
    """Returns the reported usage of an answer of `size` bytes, with estimates in place of missing counts."""
    usage = Usage() if reported is None else usage_message(reported)
    guess = estimate(prompt, size)
    if not usage.HasField("prompt_tokens"):
        usage.prompt_tokens = guess.prompt_tokens
    if not usage.HasField("completion_tokens"):
        usage.completion_tokens = guess.completion_tokens
    return with_total(usage)


def with_total(usage: Usage) -> Usage:
    """Sets the total of a usage, and returns the usage."""
    usage.total_tokens = min(usage.prompt_tokens + usage.completion_tokens, _MAX_COUNT)
    return usage


def total(usages: Sequence[Usage | TokenCounts]) -> Usage | TokenCounts | None:
    """Returns the sum of usages, each detail added separately and capped at 2³²-1; None without usages.

    `cost_details` of a backend are dropped from a sum of several.
    """
    if len(usages) < 2:  # noqa: PLR2004 - one usage is its own sum
        return usages[0] if usages else None
    added, *more = map(usage_message, usages)
    added.ClearField("cost_details")
    for usage in more:
        _add(added, usage)
    return added


def cost(usage: Usage | TokenCounts, price: Price) -> float:
    """Returns the price of a usage, in the currency of the configured prices per million tokens."""
    reported = 0 if isinstance(usage, TokenCounts) else usage.prompt_tokens_details.cached_tokens
    cached = min(reported, usage.prompt_tokens)
    per_cached = price.prompt if price.cached_prompt is None else price.cached_prompt
    prompt = (usage.prompt_tokens - cached) * price.prompt + cached * per_cached
    return (prompt + usage.completion_tokens * price.completion) / _MILLION


def _add(to: object, more: object) -> None:
    for field, value in more.ListFields():  # type: ignore[attr-defined] # any message
        if field.type == FieldDescriptor.TYPE_UINT32:
            setattr(to, field.name, min(getattr(to, field.name) + value, _MAX_COUNT))
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            setattr(to, field.name, getattr(to, field.name) + value)
        elif field.name != "cost_details":
            _add(getattr(to, field.name), value)
