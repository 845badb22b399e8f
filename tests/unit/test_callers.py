"""The callers of accounts: plans, suspension and the limits that apply."""

import pytest

from parley.auth.callers import Callers
from parley.config import UNLIMITED, Limits, LimitsConfig, Plan, default_plan
from parley.core.errors import AccountSuspended, PlanRequired
from parley.core.ports import Account, Caller

PLANS = {"none": Plan(api=False), "team": Plan(limits=Limits(requests_per_minute=600))}
CONFIGURED = LimitsConfig(
    key=Limits(requests_per_minute=60),
    account=Limits(requests_per_minute=100, tokens_per_minute=1000),
)


def test_without_limits() -> None:
    """A caller without limits has the one object that stands for none."""
    caller = Callers().caller(Account("ada", "pro"), "key_1")
    assert Caller("ada", "key_1") == caller
    assert caller.key_limits is caller.account_limits is UNLIMITED


def test_nearest_limits_apply() -> None:
    """The limits of a key or account replace those of the plan, which replace those of the configuration."""
    callers = Callers(PLANS, CONFIGURED)
    plain = callers.caller(Account("ada", "team"), "key_1")
    assert Limits(requests_per_minute=60) == plain.key_limits
    assert Limits(requests_per_minute=600, tokens_per_minute=1000) == plain.account_limits
    own = Limits(tokens_per_minute=7)
    special = callers.caller(Account("ada", "team", own), "key_1", limits=own)
    assert Limits(requests_per_minute=60, tokens_per_minute=7) == special.key_limits
    assert Limits(requests_per_minute=600, tokens_per_minute=7) == special.account_limits


@pytest.mark.parametrize("plan", ["none", "pro"])
def test_plan_without_access(plan: str) -> None:
    """A plan without access is rejected, and so is a plan that is no longer configured."""
    with pytest.raises(PlanRequired):
        Callers(PLANS).caller(Account("ada", plan), "key_1")


def test_suspended_account() -> None:
    """A suspended account is rejected, whatever its plan."""
    for plan in PLANS:
        with pytest.raises(AccountSuspended):
            Callers(PLANS).caller(Account("ada", plan, suspended=1), "key_1")


@pytest.mark.parametrize(
    ("plans", "expected"), [(("free", "pro"), "pro"), (("none", "team"), "team"), (("team", "pro"), "pro")]
)
def test_first_plan(plans: tuple[str, ...], expected: str) -> None:
    """A new account gets the plan `pro`, or else the first plan with access."""
    known = {"free": Plan(api=False), "pro": Plan(), **PLANS}
    assert expected == default_plan({name: known[name] for name in plans})
