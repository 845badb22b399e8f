"""What a completion reserves of each limit, and the errors of exhausted ones."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley.config import Limits, Price
from parley.core.errors import ConcurrencyLimited, InvalidRequest, LimitExceeded, QuotaExhausted, RateLimited
from parley.core.ports import Caller, Charge, Reservation
from parley.core.usage import charges, exceeded
from parley.core.usage.charges import Demand
from parley.stores import buckets
from tests.unit.usage.memory_store import request

NOON = 1_704_024_000.0  # 2023-12-31T12:00:00Z
PRICE = Price(prompt=2, completion=10)
ALL = Limits(
    requests_per_minute=60,
    tokens_per_minute=100_000,
    concurrent=5,
    tokens_per_day=5_000_000,
    tokens_per_month=50_000_000,
    cost_per_day=10,
    cost_per_month=200,
)


def caller(limits: Limits = ALL, **account: Any) -> Caller:
    """Returns a caller with limits of its key and its account."""
    return Caller("ada", "key_1", key_limits=limits, account_limits=Limits(**account))


def amounts(limits: Limits, demand: Demand) -> dict[str, float]:
    """Returns what a completion reserves, by kind."""
    return {one.kind: one.amount for one in charges.completion_charges(caller(limits), demand)}


def test_a_completion_reserves_every_limit_of_its_key_and_account() -> None:
    """The prompt, the history and the answer count as tokens; their price at the targets counts as money."""
    expected = {
        "requests": 1,
        "concurrent": 1,
        "tokens": 51_600,
        "tokens_per_day": 51_600,
        "tokens_per_month": 51_600,
        "cost_per_day": pytest.approx(0.1072),
        "cost_per_month": pytest.approx(0.1072),
    }
    demand = Demand(prompt=1000, history=50_100, output=500, price=PRICE)
    assert expected == amounts(ALL, demand)
    of_account = charges.completion_charges(caller(Limits(), tokens_per_day=9), demand)
    assert [Charge("account:ada", "tokens_per_day", 9, 51_600)] == of_account


@pytest.mark.parametrize(
    ("limits", "choices", "expected"),
    [
        (Limits(tokens_per_minute=100_000), 1, 4096),
        (Limits(tokens_per_minute=100_000), 3, 12_288),
        (Limits(tokens_per_minute=1000, tokens_per_day=5000), 1, 250),
        (Limits(cost_per_day=0.01, tokens_per_day=100_000), 1, 250),
        (Limits(concurrent=1, tokens_per_month=10**6), 1, 4096),
    ],
    ids=["the default", "each choice", "a quarter of a limit", "a quarter of the money", "other limits"],
)
def test_an_answer_without_a_limit_has_a_default(limits: Limits, choices: int, expected: int) -> None:
    """4,096 tokens a choice are reserved, but at most a quarter of the tightest limit."""
    found = amounts(limits, Demand(prompt=0, choices=choices, price=PRICE))
    assert {expected} == {amount for kind, amount in found.items() if kind.startswith("tokens")}


def test_other_calls_are_charged_a_request_and_read_the_tokens() -> None:
    """A call that is not a completion is charged neither tokens nor money, and does not count as running."""
    assert {"requests": 1, "tokens": 0} == {one.kind: one.amount for one in charges.request_charges(caller())}


@pytest.mark.parametrize(
    ("limits", "needed"),
    [(ALL, True), (Limits(requests_per_minute=5, concurrent=5), False), (Limits(cost_per_month=5), True)],
)
def test_only_limits_of_tokens_and_money_need_the_history(limits: Limits, needed: bool) -> None:
    """The history is read only if it is charged."""
    assert needed == charges.needs_history(caller(limits))


@pytest.mark.parametrize(
    ("limits", "demand", "param", "message"),
    [
        ({"tokens_per_day": 500}, {"prompt": 600}, "messages", "`messages` are too long: about 600 tokens, more than"),
        ({"tokens_per_minute": 500}, {"prompt": 9, "output": 600}, "max_tokens", "`max_tokens` is too large: with a"),
        ({"tokens_per_month": 500}, {"prompt": 9, "history": 600}, "chatSessionId", "has about 609 tokens, more than"),
        ({"cost_per_day": 0.001}, {"prompt": 9, "output": 600}, "max_tokens", "may cost 0.006018, more than the 0.001"),
        ({"cost_per_month": 0.001}, {"prompt": 900}, "messages", "more than the 0.001 a month of this key"),
    ],
)
def test_a_request_that_no_wait_helps_is_invalid(
    limits: dict[str, Any], demand: dict[str, Any], param: str, message: str
) -> None:
    """A request that needs more than a whole limit names the field to change."""
    wanted = Demand(price=PRICE, **demand)
    made = charges.completion_charges(caller(Limits(**limits)), wanted)
    with pytest.raises(InvalidRequest, match=message) as rejected:
        exceeded.require_possible(request(max_tokens=600), made, wanted)
    assert param == rejected.value.param


@pytest.mark.parametrize(
    ("charge", "remaining", "error", "message", "wait"),
    [
        (("requests", 60, 1), 0.25, RateLimited, "This key may make 60 requests a minute, and 0 are left; try", 1),
        (("tokens", 600, 100), 40, RateLimited, "use 600 tokens a minute: 40 are left, this request may need 100", 6),
        (("concurrent", 3, 1), 0, ConcurrencyLimited, "may run 3 calls at once, and 3 are running; try again", None),
        (("tokens_per_day", 5e6, 900), 8, QuotaExhausted, "use 5000000 tokens a day: 8 are left, this", 43_200),
        (("cost_per_month", 200, 0.5), 0.125, QuotaExhausted, "spend 200 a month: 0.125 is left, this", 43_200),
        (("cost_per_month", 200, 0.5), -3, QuotaExhausted, "0 is left, .* the next month begins in 43200 s", 43_200),
    ],
)
def test_the_error_of_an_exhausted_limit(
    charge: tuple[str, float, float], remaining: float, error: type[Exception], message: str, wait: float | None
) -> None:
    """The error names the limit, what is left and needed, and the seconds until a retry may succeed."""
    made = [Charge("key:key_1", *charge), Charge("account:ada", "tokens", 1e9, 1)]
    found = exceeded.rejection(made, Reservation(False, (remaining, 1e9), NOON))
    assert isinstance(found, error)
    with pytest.raises(error, match=message):
        raise found
    assert wait == found.retry_after
    assert "key:key_1" == found.subject  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(ALL.set_values()))
def test_the_error_has_the_configured_name_of_the_limit(name: str) -> None:
    """Metrics count the calls that a limit rejects under the name that the configuration gives it."""
    limited = caller(Limits(**{name: 1}))
    (charge,) = charges.completion_charges(limited, Demand(1, 0, 1, 1, PRICE))
    found = exceeded.rejection([replace(charge, amount=2)], Reservation(False, (0,), NOON))
    assert isinstance(found, LimitExceeded)
    assert name == found.limit


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(0, 100)), max_size=30),
    st.sampled_from(["tokens", "tokens_per_day", "cost_per_month"]),
)
def test_at_most_the_running_reservations_are_overspent(calls: list[tuple[int, int]], kind: str) -> None:
    """However calls end, what ended calls have used and what is reserved equals the used amount."""
    used, running, settled = 0.0, 0.0, 0.0
    for index, (reserve, spend) in enumerate(calls):
        charge = Charge("key:1", kind, 150, reserve)
        if not buckets.reserved([charge], [used]).granted:
            continue
        assert used + reserve <= 150.01
        used, running = used + reserve, running + reserve
        if index % 2:
            used += buckets.correction(Charge("key:1", kind, 150, spend, reserve), started=NOON, now=NOON)
            running, settled = running - reserve, settled + spend
        assert pytest.approx(running + settled) == used


@given(st.floats(0, 4e9), st.floats(0, 4e6))
def test_days_are_parts_of_months(now: float, passed: float) -> None:
    """A new month begins with a new day, and both only with time."""
    charge = [Charge("key:1", kind, 9, 0) for kind in ("tokens_per_day", "tokens_per_month")]
    day, month = (buckets.used_now(one, 5, now, now + passed) for one in charge)
    assert (day, month) in {(5, 5), (0, 5), (0, 0)}
    assert passed < 86_400 or day == 0
