"""Soft budgets: notices when the usage of an account or a key reaches a share of a limit of a day or a month.

The usage is that of `parley usage`, of all workers. An account that makes calls is checked every few seconds; a row in
the store makes sure that each share is reported once in each period.

A limit rejects a call that may need more than is left, which may be before a share is used. Shares are reported also
when such a call does not fit any more, so that a limit does not reject calls without a report.
"""

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import structlog

from parley.config import UNLIMITED, Limits
from parley.core.background import PeriodicTask
from parley.core.ports import Caller, Charge, Store, UsageCounts, UsageQuery, UsageRow
from parley.core.ports.alerts import Alert
from parley.core.ports.usage import NANOS
from parley.core.usage.recorder import day
from parley.core.usage.report import iso

_CHECK_SECONDS = 1.0
_PAUSE_SECONDS = 10.0  # between two checks of an account
_BUDGETS: Sequence[tuple[str, Literal["day", "month"], Literal["tokens", "cost"]]] = (
    ("tokens_per_day", "day", "tokens"),
    ("tokens_per_month", "month", "tokens"),
    ("cost_per_day", "day", "cost"),
    ("cost_per_month", "month", "cost"),
)
_UNITS = {name: unit for name, unit, _ in _BUDGETS}

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Budget:
    """A limit of a period and what was used of it.

    Attributes:
        account: The account that is limited, or whose key is.
        key: The key that is limited; None for the account.
        limit: The name of the limit.
        period: The day or the month.
        used: What was used in the period.
        allowed: The value of the limit.
        needed: The most that a call needed which the limit has rejected in the period; 0 without one.
    """

    account: str
    key: str | None
    limit: str
    period: str
    used: float
    allowed: float
    needed: float = 0.0

    @property
    def limited(self) -> str:
        """What is limited, as charges name it."""
        return f"account:{self.account}" if self.key is None else f"key:{self.key}"

    def has_reached(self, threshold: float) -> bool:
        """Returns whether a share of the limit is used, or the limit has rejected a call and would do so again."""
        if threshold <= 1 and self.used + self.needed > self.allowed:
            return True
        return self.used >= threshold * self.allowed

    @property
    def subject(self) -> str:
        return f"account:{self.account}" + ("" if self.key is None else f"/key:{self.key}")


class BudgetMonitor:
    """Compares usage with limits. One for each worker.

    `alerts` counts what it has reported, by limit and share.
    """

    def __init__(
        self,
        store: Store,
        warn_at: Sequence[float],
        *,
        deliver: bool,
        clock: Callable[[], float] = time.time,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        """Creates a monitor that does not check before `start`.

        Args:
            store: Holds usage and alerts.
            warn_at: The shares to report.
            deliver: Whether alerts are delivered, or logged only.
            clock: Returns Unix seconds, which decide the period.
            pause_seconds: The time between two checks of an account.
        """
        self._store = store
        self._warn_at = sorted(set(warn_at))
        self._deliver = deliver
        self._clock = clock
        self._pause = pause_seconds
        self._pending: dict[str, dict[str, Caller]] = {}
        self._needed: dict[tuple[str, str], tuple[str, float]] = {}  # by what is limited and the limit: period, amount
        self._checked: dict[str, float] = {}
        self._reported: set[tuple[str, str, str, float]] = set()
        # With zeros, so that a metric shows the first alert as an increase.
        self.alerts = Counter({(name, share): 0 for name, _, _ in _BUDGETS for share in self._warn_at})
        self._task = PeriodicTask("budgets", self.check, min(_CHECK_SECONDS, pause_seconds), jitter=0.1)

    def start(self) -> None:
        """Starts the periodic checks, if there is something to report."""
        if self._warn_at:
            self._task.start()

    async def close(self) -> None:
        """Stops the periodic checks."""
        await self._task.stop()

    def add(self, callers: Iterable[Caller]) -> None:
        """Marks callers whose usage was stored, to be checked."""
        for caller in callers:
            if caller.account_limits is not UNLIMITED or caller.key_limits is not UNLIMITED:
                self._pending.setdefault(caller.account, {})[caller.key_id] = caller

    def add_rejected(self, caller: Caller, exhausted: Iterable[Charge]) -> None:
        """Marks a caller of whom limits have rejected a call, with the charges that exceeded them."""
        today = day(self._clock())
        for charge in exhausted:
            if (unit := _UNITS.get(charge.kind)) is not None:
                place, period = (charge.subject, charge.kind), _period(today, unit)
                known, most = self._needed.get(place, ("", 0.0))
                self._needed[place] = period, max(charge.amount, most) if known == period else charge.amount
                self.add([caller])

    async def check(self) -> None:
        """Checks the accounts that were marked, except those checked a short time ago. Raises StoreUnavailable."""
        now = self._clock()
        self._checked = {account: at for account, at in self._checked.items() if 0 <= now - at < self._pause}
        for account in [account for account in self._pending if account not in self._checked]:
            self._checked[account] = now
            callers = self._pending.pop(account)
            try:
                await self._check_account(account, list(callers.values()), day(now))
            except BaseException:
                self._pending[account] = {**callers, **self._pending.get(account, {})}
                del self._checked[account]
                raise

    async def _check_account(self, account: str, callers: Sequence[Caller], today: int) -> None:
        if not any(_has_budget(limits) for caller in callers for limits in (caller.account_limits, caller.key_limits)):
            return
        first = today - int(iso(today)[8:]) + 1
        rows = await self._store.usage(UsageQuery(("day", "key"), first, today, account))
        for found in _budgets(account, callers, rows, today):
            period, needed = self._needed.get((found.limited, found.limit), ("", 0.0))
            budget = replace(found, needed=needed) if period == found.period else found
            for threshold in self._warn_at:
                if budget.has_reached(threshold):
                    await self._report(budget, threshold)

    async def _report(self, budget: _Budget, threshold: float) -> None:
        """Logs and stores an alert, unless that was done, by this worker or another one."""
        place = (budget.subject, budget.limit, budget.period, threshold)
        if place in self._reported:
            return
        alert = _alert(budget, threshold, self._clock())
        is_new = await self._store.add_alert(alert, deliver=self._deliver)
        self._reported = {each for each in self._reported if budget.period.startswith(each[2][:7])} | {place}
        if is_new:
            self.alerts[budget.limit, threshold] += 1
            _log.warning("budget reached", **_fields(budget, threshold))


def _has_budget(limits: Limits) -> bool:
    return any(getattr(limits, name) is not None for name, _, _ in _BUDGETS)


def _budgets(account: str, callers: Sequence[Caller], rows: Sequence[UsageRow], today: int) -> Iterator[_Budget]:
    """Yields the limits of the account and of the callers' keys, with what was used of them."""
    yield from _of(account, None, callers[-1].account_limits, rows, today)
    for caller in callers:
        own = [row for row in rows if row.group[1] == caller.key_id]
        yield from _of(account, caller.key_id, caller.key_limits, own, today)


def _of(account: str, key: str | None, limits: Limits, rows: Sequence[UsageRow], today: int) -> Iterator[_Budget]:
    for name, unit, kind in _BUDGETS:
        allowed = getattr(limits, name)
        if allowed is not None:
            counts = [row.counts for row in rows if unit == "month" or row.group[0] == today]
            period = _period(today, unit)
            yield _Budget(account, key, name, period, sum(_used(each, kind) for each in counts), float(allowed))


def _period(today: int, unit: Literal["day", "month"]) -> str:
    return iso(today) if unit == "day" else iso(today)[:7]


def _used(counts: UsageCounts, kind: Literal["tokens", "cost"]) -> float:
    return counts.cost_nanos / NANOS if kind == "cost" else counts.prompt_tokens + counts.completion_tokens


def _alert(budget: _Budget, threshold: float, now: float) -> Alert:
    """Returns the alert, with the payload that Standard Webhooks recommends."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    payload = {"type": "budget.reached", "timestamp": moment, "data": _fields(budget, threshold)}
    text = json.dumps(payload, ensure_ascii=False)
    return Alert(f"msg_{uuid.uuid4().hex}", budget.subject, budget.limit, budget.period, threshold, text)


def _fields(budget: _Budget, threshold: float) -> dict[str, str | float]:
    key = {} if budget.key is None else {"key": budget.key}
    numbers = {"threshold": threshold, "used": round(budget.used, 9), "allowed": budget.allowed}
    needed = {"needed": round(budget.needed, 9)} if budget.used < threshold * budget.allowed else {}
    return {"account": budget.account, **key, "limit": budget.limit, "period": budget.period, **numbers, **needed}
