"""The interface of a store of usage: what calls have used, by account, day, key, model and target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, Protocol

Dimension = Literal["day", "account", "key", "model", "target"]
NANOS = 1_000_000_000
"""Units in which costs are stored, for one unit of the configured prices' currency."""


class UsageKey(NamedTuple):
    """What usage is counted by.

    Attributes:
        account: The name of the account.
        day: The day in UTC, as days since 1970-01-01.
        key: The id of the API key.
        model: The id of the model.
        target: The name of the target; empty for calls that ended before their first attempt.
    """

    account: str
    day: int
    key: str
    model: str
    target: str


@dataclass(slots=True)
class UsageCounts:
    """What was used.

    Attributes:
        calls: Calls, each counted at the target that answered, or at that of its last attempt.
        errors: Those of the calls that failed or were cancelled.
        attempts: Requests to the target, retries and hedges included.
        prompt_tokens: Tokens of the prompts.
        cached_tokens: Those of the prompt tokens that the target had cached.
        completion_tokens: Tokens of the answers.
        reasoning_tokens: Those of the completion tokens that are reasoning.
        cost_nanos: The cost in `NANOS`; each attempt is rounded.
    """

    calls: int = 0
    errors: int = 0
    attempts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanos: int = 0

    def add(self, more: "UsageCounts") -> None:
        """Adds other counts to these."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(more, field.name))


COUNTS = tuple(field.name for field in fields(UsageCounts))
"""The names of the counts, in order."""


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What to sum up.

    Attributes:
        group: The dimensions of a row, in the order of its values and of the sorting.
        since: The first day, as days since 1970-01-01; None for no bound.
        until: The last day; None for no bound.
        account: Counts this account only; None for all.
        key: Counts this key only; None for all.
        models: Counts these models only; empty for all. One that ends with `*` stands for all that begin with the rest.
        limit: The largest number of rows to return.
    """

    group: Sequence[Dimension] = ()
    since: int | None = None
    until: int | None = None
    account: str | None = None
    key: str | None = None
    models: Sequence[str] = ()
    limit: int = 100_000


class UsageRow(NamedTuple):
    """One sum.

    Attributes:
        group: The values of the query's dimensions.
        counts: The sum. Without dimensions there is exactly one row, of zeros if nothing was used.
    """

    group: tuple[str | int, ...]
    counts: UsageCounts


class UsageStore(Protocol):
    """Stores usage. Every method raises StoreUnavailable if the store is unreachable."""

    async def add_usage(self, writer: str, batch: int, usage: Mapping[UsageKey, UsageCounts]) -> None:
        """Adds counts, once: a batch that was stored already is ignored, so that it can be sent again after an error.

        Args:
            writer: Identifies the worker, unique among all that ever ran.
            batch: The number of the worker's batch, from 1, without gaps.
            usage: The counts to add.
        """
        ...

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Sums up usage."""
        ...
