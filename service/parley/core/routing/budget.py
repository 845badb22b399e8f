"""The retry budgets of a model: bound the extra load that retries and hedges put on failing backends."""

import time

from parley.core.routing.breaker import Clock

MIN_RETRIES_PER_SECOND = 3.0
MAX_BALANCE = 30.0
"""The largest balance of an account: the free retries of ten seconds without retries."""
MODEL_SHARE = 10
"""How many times the free retries of one account all accounts of a model have together."""
_MAX_ACCOUNTS = 1024


class RetryBudget:
    """A retry budget.

    Args:
        share: Retry tokens that each call adds. `MIN_RETRIES_PER_SECOND` retries are free.
        clock: Returns the time in seconds.
        model: The budget of all accounts of the model, which each retry is withdrawn from too; None for no such limit.
        size: Multiplies the free retries.

    Attributes:
        is_full: Whether a deposit adds nothing.
    """

    __slots__ = ("_balance", "_clock", "_model", "_most", "_share", "_size", "_updated", "is_full")

    def __init__(
        self, share: float, clock: Clock = time.monotonic, model: "RetryBudget | None" = None, size: int = 1
    ) -> None:
        self._share = share
        self._clock = clock
        self._model = model
        self._size = size
        self._balance = self._most = size * MAX_BALANCE
        self._updated = clock()
        self.is_full = True

    def deposit(self) -> None:
        """Deposits the share of one call."""
        if not self.is_full:
            self._balance = min(self._most, self._balance + self._share)
            self.is_full = self._balance >= self._most
        if self._model is not None and not self._model.is_full:
            self._model.deposit()

    def try_withdraw(self) -> bool:
        """Withdraws one retry. Returns False if the balance does not cover it."""
        if self._refill() < 1 or (self._model is not None and not self._model.try_withdraw()):
            return False
        self._balance -= 1
        self.is_full = False
        return True

    def _refill(self) -> float:
        """Adds the free retries since the latest call, and returns the balance."""
        now = self._clock()
        added = self._size * MIN_RETRIES_PER_SECOND * (now - self._updated)
        self._balance = min(self._most, self._balance + added)
        self._updated = now
        return self._balance


class ModelBudgets:
    """The retry budgets of one model in this worker: one for each account, so that none uses up the retries of another.

    Args:
        share: Retry tokens that each call adds.
        clock: Returns the time in seconds.
    """

    def __init__(self, share: float, clock: Clock = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._model = RetryBudget(share, clock, size=MODEL_SHARE)
        self._accounts: dict[str, RetryBudget] = {}

    def of(self, account: str) -> RetryBudget:
        """Returns the budget of an account."""
        budget = self._accounts.get(account)
        if budget is None:
            if len(self._accounts) >= _MAX_ACCOUNTS:
                del self._accounts[next(iter(self._accounts))]
            budget = self._accounts[account] = RetryBudget(self._share, self._clock, self._model)
        return budget
