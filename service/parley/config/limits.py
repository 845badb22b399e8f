"""Limits of keys and accounts, and the plans of accounts."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

from parley.config.markers import Constraints
from parley.config.types import Count, Money, Size, Strict

_Count = Annotated[Count, Constraints(ge=1, le=10**12)]
_Money = Annotated[Money, Constraints(gt=0, le=10**12)]


class Limits(Strict):
    """Limits of a key or an account; one that is not set does not apply.

    Days and months are those of the calendar in UTC. Money is in the currency of `prices`.
    """

    requests_per_minute: _Count | None = None
    """Requests a minute. Every call counts, failed ones too."""
    tokens_per_minute: _Count | None = None
    """Tokens a minute, of prompts and answers together."""
    concurrent: _Count | None = None
    """Completions that run at the same time, streams until their end."""
    tokens_per_day: _Count | None = None
    """Tokens a day."""
    tokens_per_month: _Count | None = None
    """Tokens a month."""
    cost_per_day: _Money | None = None
    """Money a day."""
    cost_per_month: _Money | None = None
    """Money a month."""
    sessions: _Count | None = None
    """Stored sessions. Only accounts have this limit."""
    bytes: Annotated[Size, Constraints(ge=1)] | None = None
    """Stored bytes of all sessions. Only accounts have this limit."""

    def set_values(self) -> dict[str, Any]:
        """Returns the limits that are set, by name."""
        return {name: value for name in LIMIT_NAMES if (value := getattr(self, name)) is not None}


LIMIT_NAMES = tuple(one.name for one in fields(Limits))
"""The names of all limits."""

STORAGE_LIMITS = ("sessions", "bytes")
"""The limits that only accounts have."""
UNLIMITED = Limits()
"""No limits. `merged` returns this object if no limit is set, so that callers can compare by identity."""


class SessionLimits(Strict):
    """Limits of one session.

    Example:
        limits: {session: {bytes: 4MiB}}
    """

    bytes: Annotated[Size, Constraints(ge=1)] = 64 * 1024 * 1024
    """Bytes above which a session accepts no further turn. The answer of an accepted turn is always stored."""


class LimitsConfig(Strict):
    """Limits of every key and account, unless its plan or its own settings replace them.

    All workers and replicas share one count.

    Example:
        limits:
          key: {requests_per_minute: 60, tokens_per_minute: 100k, concurrent: 20, cost_per_month: 200}
          account: {requests_per_minute: 600, tokens_per_day: 5M, sessions: 100k, bytes: 1GiB}
    """

    key: Limits = UNLIMITED
    """Limits of each API key."""
    account: Limits = UNLIMITED
    """Limits of each account, all its keys together."""
    session: SessionLimits = SessionLimits()
    """Limits of each session."""

    def __post_init__(self) -> None:
        """Checks that keys have no limits of storage, which belongs to accounts."""
        for name in STORAGE_LIMITS:
            if getattr(self.key, name) is not None:
                raise ValueError(f"key.{name}: sessions belong to accounts; set `{name}` under `account`")


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


def default_plan(plans: Mapping[str, Plan]) -> str:
    """Returns the plan of a new account: `pro`, or the first plan with access to the API."""
    with_access = [name for name, plan in plans.items() if plan.api]
    return "pro" if "pro" in with_access or not with_access else with_access[0]


def merged(defaults: Limits, own: Limits) -> Limits:
    """Returns the limits that apply: each that `own` sets, and the other ones of `defaults`."""
    values = defaults.set_values() | own.set_values()
    return Limits(**values) if values else UNLIMITED
