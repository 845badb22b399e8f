"""The callers that authenticated keys and tokens stand for."""

from collections.abc import Collection, Mapping

from parley.config import DEFAULT_PLANS, UNLIMITED, Limits, LimitsConfig, Plan, default_plan, merged
from parley.core.errors import AccountSuspended, PlanRequired
from parley.core.ports import Account, Caller, Scope

_WITHOUT_ACCESS = Plan(api=False)
_NO_LIMITS = LimitsConfig()


class Callers:
    """Applies the plans and the limits of the configuration.

    Args:
        plans: The plans by name. An account of another plan has no access.
        limits: The limits that plans, accounts and keys replace.
    """

    def __init__(self, plans: Mapping[str, Plan] = DEFAULT_PLANS, limits: LimitsConfig = _NO_LIMITS) -> None:
        self._plans = plans
        self._limits = limits

    @property
    def first_plan(self) -> str:
        """The plan of a new account."""
        return default_plan(self._plans)

    def caller(
        self,
        account: Account,
        key_id: str,
        models: Collection[str] = (),
        scopes: Collection[Scope] = (),
        limits: Limits = UNLIMITED,
    ) -> Caller:
        """Returns the caller of an account.

        Args:
            account: The account.
            key_id: The id of the key, or of what stands for one.
            models: The models that the key may use; empty for all.
            scopes: What the key may do; empty for everything.
            limits: The key's own limits.

        Raises:
            AccountSuspended: The account is suspended.
            PlanRequired: The account's plan has no access to the API.
        """
        if account.suspended is not None:
            raise AccountSuspended
        plan = self._plans.get(account.plan, _WITHOUT_ACCESS)
        if not plan.api:
            raise PlanRequired
        return Caller(
            account.name,
            key_id,
            frozenset(models),
            frozenset(scopes),
            merged(self._limits.key, limits),
            merged(merged(self._limits.account, plan.limits), account.limits),
        )
