"""What a call reserves of its caller's limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from parley.config import UNLIMITED, Limits, Price
from parley.core.ports import Caller, Charge
from parley.core.ports.limits import (
    CONCURRENT,
    COST_KINDS,
    COST_PER_DAY,
    COST_PER_MONTH,
    REQUESTS,
    TOKEN_KINDS,
    TOKENS,
    TOKENS_PER_DAY,
    TOKENS_PER_MONTH,
)

DEFAULT_OUTPUT_TOKENS = 4096
"""The tokens that are reserved for an answer without a limit of its own."""
_DEFAULT_SHARE = 0.25  # of a limit: the most that is reserved for such an answer, so that small limits admit calls
_FIELDS = {
    "requests_per_minute": REQUESTS,
    "tokens_per_minute": TOKENS,
    "concurrent": CONCURRENT,
    "tokens_per_day": TOKENS_PER_DAY,
    "tokens_per_month": TOKENS_PER_MONTH,
    "cost_per_day": COST_PER_DAY,
    "cost_per_month": COST_PER_MONTH,
}
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Demand:
    """What a completion may use.

    Attributes:
        prompt: The estimated tokens of the prompt, without the history of the session.
        history: The estimated tokens of the history that the prompt has in addition.
        output: The most tokens of all choices of the answer; 0 without a limit.
        choices: The number of choices.
        price: The highest prices of the targets; None if they have none.
    """

    prompt: int
    history: int = 0
    output: int = 0
    choices: int = 1
    price: Price | None = None


def is_limited(caller: Caller) -> bool:
    """Returns whether the key or the account has any limit."""
    return caller.key_limits is not UNLIMITED or caller.account_limits is not UNLIMITED


def needs_history(caller: Caller) -> bool:
    """Returns whether tokens or money of the caller are limited, so that the history must be reserved."""
    kinds = [kind for limits in (caller.key_limits, caller.account_limits) for kind, _ in _counted(limits)]
    return not {*TOKEN_KINDS, *COST_KINDS}.isdisjoint(kinds)


def request_charges(caller: Caller) -> list[Charge]:
    """Returns the charges of a call that is not a completion. Tokens are read and not charged."""
    return _charges(caller, {REQUESTS: 1, TOKENS: 0})


def completion_charges(caller: Caller, demand: Demand) -> list[Charge]:
    """Returns the charges of a completion."""
    prompt = demand.prompt + demand.history
    limits = _charges(caller, dict.fromkeys(_FIELDS.values(), 0))
    output = demand.output or _default_output(limits, demand)
    tokens = prompt + output
    money = 0.0
    if demand.price is not None:
        money = (prompt * demand.price.prompt + output * demand.price.completion) / _MILLION
    amounts = {REQUESTS: 1.0, CONCURRENT: 1.0} | dict.fromkeys(TOKEN_KINDS, tokens) | dict.fromkeys(COST_KINDS, money)
    return [Charge(one.subject, one.kind, one.limit, amounts[one.kind]) for one in limits]


def _charges(caller: Caller, amounts: Mapping[str, float]) -> list[Charge]:
    subjects = ((f"key:{caller.key_id}", caller.key_limits), (f"account:{caller.account}", caller.account_limits))
    return [
        Charge(subject, kind, limit, amounts[kind])
        for subject, limits in subjects
        for kind, limit in _counted(limits)
        if kind in amounts
    ]


@lru_cache(maxsize=4096)
def _counted(limits: Limits) -> tuple[tuple[str, float], ...]:
    """Returns the kinds and amounts of the limits that calls are charged to."""
    values = ((kind, getattr(limits, field)) for field, kind in _FIELDS.items())
    return tuple((kind, value) for kind, value in values if value is not None)


def _default_output(limits: Sequence[Charge], demand: Demand) -> int:
    """Returns the tokens to reserve for an answer without a limit."""
    output = float(DEFAULT_OUTPUT_TOKENS * demand.choices)
    price = demand.price.completion if demand.price else 0.0
    for one in limits:
        if one.kind in TOKEN_KINDS:
            output = min(output, one.limit * _DEFAULT_SHARE)
        elif one.kind in COST_KINDS and price:
            output = min(output, one.limit * _DEFAULT_SHARE * _MILLION / price)
    return int(output)
