"""The callers that authenticated keys and tokens stand for."""

from collections.abc import Collection, Mapping, Sequence

from parley.config import DEFAULT_PLANS, UNLIMITED, Limits, LimitsConfig, Model, Plan, default_plan, merged
from parley.core.errors import AccountSuspended, PlanRequired
from parley.core.ports import Account, Caller, Scope

_WITHOUT_ACCESS = Plan(api=False)
_NO_LIMITS = LimitsConfig()


class Callers:
    """Applies the plans and the limits of the configuration.

    Args:
        plans: The plans by name. An account of another plan has no access.
        limits: The limits that plans, accounts and keys replace.
        models: The models, whose aliases stand for them in keys, and they for their aliases.
    """

    def __init__(
        self,
        plans: Mapping[str, Plan] = DEFAULT_PLANS,
        limits: LimitsConfig = _NO_LIMITS,
        models: Sequence[Model] = (),
    ) -> None:
        self._plans = plans
        self._limits = limits
        self._ids: dict[str, frozenset[str]] = {}  # all ids of a model, by each of them; of models with aliases
        for model in models:
            ids = frozenset({model.id, *(alias.id for alias in model.aliases)})
            self._ids.update(dict.fromkeys(ids if model.aliases else (), ids))

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
            self._with_aliases(frozenset(models)),
            frozenset(scopes),
            merged(self._limits.key, limits),
            merged(merged(self._limits.account, plan.limits), account.limits),
        )

    def _with_aliases(self, models: frozenset[str]) -> frozenset[str]:
        return models.union(*(self._ids.get(model, ()) for model in models)) if self._ids else models
