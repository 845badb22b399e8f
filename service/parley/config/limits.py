"""Limits of keys and accounts, and the plans of accounts."""

from pydantic import Field

from parley.config.types import Strict

_MAX_PER_MINUTE = 10**12


class Limits(Strict):
    """Limits of a key or an account; one that is not set does not apply."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=_MAX_PER_MINUTE)
    """Requests a minute."""
    tokens_per_minute: int | None = Field(default=None, ge=1, le=_MAX_PER_MINUTE)
    """Tokens a minute, of prompts and answers together."""


UNLIMITED = Limits()
"""No limits. `merged` returns this object if no limit is set, so that callers can compare by identity."""


class LimitsConfig(Strict):
    """Limits of every key and account, unless its plan or its own settings replace them.

    All workers and replicas share one count.

    Example:
        limits:
          key: {requests_per_minute: 60, tokens_per_minute: 100000}
          account: {requests_per_minute: 600, tokens_per_minute: 1000000}
    """

    key: Limits = UNLIMITED
    """Limits of each API key."""
    account: Limits = UNLIMITED
    """Limits of each account, all its keys together."""


class Plan(Strict):
    """A plan: what its accounts may use.

    Example:
        plans:
          free: {api: false}
          pro: {limits: {requests_per_minute: 600}}
    """

    api: bool = True
    """Whether accounts of this plan have access to the API."""
    limits: Limits = UNLIMITED
    """Limits of each account of this plan. One that is not set is that of `limits.account`."""


DEFAULT_PLANS = {"free": Plan(api=False), "pro": Plan()}


def merged(defaults: Limits, own: Limits) -> Limits:
    """Returns the limits that apply: each that `own` sets, and the other ones of `defaults`."""
    values = defaults.model_dump(exclude_none=True) | own.model_dump(exclude_none=True)
    return Limits(**values) if values else UNLIMITED
