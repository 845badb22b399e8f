"""What attempts cost: in tokens, told or estimated, and in money."""

from collections.abc import Iterable

from google.protobuf.descriptor import FieldDescriptor

from parley.config import Price
from parley.core.history import BYTES_A_TOKEN, tokens
from parley.v1.message_pb2 import Message, Usage

_MILLION = 1_000_000
_MOST = 2**32 - 1  # what a count can be


def estimate(prompt: Iterable[Message], texts: Iterable[str]) -> Usage:
    """Estimates what an answer cost that broke off before its backend told: a token for four bytes of text."""
    size = sum(len(text.encode()) for text in texts)
    usage = Usage(prompt_tokens=sum(map(tokens, prompt)), completion_tokens=-(-size // BYTES_A_TOKEN))
    return counted(usage)


def counted(usage: Usage) -> Usage:
    """Sets the total of a usage, and returns it."""
    usage.total_tokens = min(usage.prompt_tokens + usage.completion_tokens, _MOST)
    return usage


def total(usages: Iterable[Usage]) -> Usage | None:
    """Adds usages up, each detail by itself, as far as a count can go; None where there are none."""
    added: Usage | None = None
    for usage in usages:
        if added is None:
            added = Usage()
            added.CopyFrom(usage)
        else:
            added.ClearField("cost_details")
            _add(added, usage)
    return added


def cost(usage: Usage, price: Price) -> float:
    """Returns what these tokens cost, in the currency of the prices."""
    cached = min(usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens)
    per_cached = price.prompt if price.cached_prompt is None else price.cached_prompt
    prompt = (usage.prompt_tokens - cached) * price.prompt + cached * per_cached
    return (prompt + usage.completion_tokens * price.completion) / _MILLION


def _add(to: object, more: object) -> None:
    for field, value in more.ListFields():  # type: ignore[attr-defined] # any message
        if field.type == FieldDescriptor.TYPE_UINT32:
            setattr(to, field.name, min(getattr(to, field.name) + value, _MOST))
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            setattr(to, field.name, getattr(to, field.name) + value)
        elif field.name != "cost_details":
            _add(getattr(to, field.name), value)
