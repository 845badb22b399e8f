"""Whose fault a failure is: a caller's own failures do not cost other callers the target."""

import pytest

from parley.config import Retries
from parley.core.errors import LocalPortsExhausted, LocalResourcesExhausted, LoopDetected, ParleyError, UpstreamError
from parley.core.routing.budget import ModelBudgets
from parley.core.routing.call_origin import CallOrigin
from parley.core.routing.probe_schedule import INITIAL_INTERVAL, MAX_INTERVAL
from parley.core.routing.targets import Candidate
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message
from tests.unit.routing.routes import FAILURES, Clock, candidates
from tests.unit.routing.scripted_failures import Play

NEVER = {"too long", "policy", "rejected", "unsupported"}
"""Failures that show nothing against a target."""
HELD = {"busy for 10 s", "busy for 60 s", "away for 60 s"}
ONCE = Retries(attempts=1)


def origin(account: str, **parameters: object) -> CallOrigin:
    """Returns the origin of a call with these parameters."""
    return CallOrigin(account, CreateChatCompletionRequest(model="m", **parameters))  # type: ignore[arg-type]


class Service:
    """One target whose calls fail as their caller wants."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.waiting = candidates(self.clock, "a")

    @property
    def target(self) -> Candidate:
        """The only target."""
        return self.waiting[0]

    def call(self, caller: CallOrigin, failure: str | None = None) -> bool:
        """Makes a call. Returns whether it reached the target."""
        failures = {"a": [failure, "…"]} if failure else {}
        return bool(Play(failures, ONCE, clock=self.clock, origin=caller).of(self.waiting).called)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a failure to connect, which no request can cause."""

    def raised() -> ParleyError:
        error = FAILURES["unavailable"]()
        assert isinstance(error, UpstreamError)
        error.is_unreachable = True
        return error

    monkeypatch.setitem(FAILURES, "refused", raised)
    return "refused"


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_a_parameter_that_makes_the_target_fail_costs_no_other_account_a_call(kind: str) -> None:
    """Whatever the failure is, and even if the other account calls only once a minute."""
    service = Service()
    bad, good = origin("bad", reasoning_effort="zzz"), origin("good")
    assert service.call(good)
    for second in range(1, 300):
        service.call(bad, kind)
        service.clock.now += 1
        if second % 60 == 0:
            assert service.call(good), f"after {second} s"


@pytest.mark.parametrize("kind", sorted(FAILURES.keys() - HELD))
def test_a_text_that_makes_the_target_fail_costs_no_other_account_a_call(kind: str) -> None:
    """Requests without parameters count for their account only, as well."""
    service = Service()
    for _ in range(50):
        service.call(origin("bad"), kind)
        service.clock.now += 0.1
    assert service.call(origin("good"))


@pytest.mark.parametrize("kind", sorted(FAILURES.keys() - NEVER - HELD))
def test_a_parameter_that_makes_the_target_fail_costs_its_account_only_such_calls(kind: str) -> None:
    """Calls of the same account without the parameter go on, and those with it are blocked after five failures."""
    service = Service()
    bad = origin("one", extra_body_json='{"reasoning_format": "zzz"}')
    reached = sum(service.call(bad, kind) for _ in range(20))
    assert reached == (20 if kind in {"rejected perhaps", "oversized", "busy for 2 s"} else 5)
    assert service.call(origin("one"))
    assert service.call(origin("one", temperature=1))


def test_two_faulty_accounts_do_not_cost_a_third_one_the_target() -> None:
    """An account that was answered lately must see the failure too, before it counts for all."""
    service = Service()
    assert service.call(origin("good"))
    for _ in range(60):
        for account in ("bad", "worse"):
            for _ in range(5):
                service.call(origin(account, seed=1), "500")
        assert service.call(origin("good"))
        service.clock.now += 1


@pytest.mark.parametrize("kind", sorted(FAILURES.keys() - NEVER - HELD - {"busy for 2 s", "oversized"}))
def test_a_failure_that_every_account_sees_opens_the_breaker_for_all(kind: str) -> None:
    """A third account makes no call to a target that has failed for all accounts that it answered before."""
    service = Service()
    accounts = [origin("a"), origin("b", seed=1)]
    assert all(map(service.call, accounts))
    for _ in range(6):
        for account in accounts:
            service.call(account, kind)
    assert not service.call(origin("c"))


def test_many_accounts_confirm_a_failure_although_others_were_answered_lately() -> None:
    """An outage is seen after a few calls, even where thousands of accounts call rarely."""
    service = Service()
    for number in range(100):
        assert service.call(origin(f"account {number}"))
    reached = sum(service.call(origin(f"account {number}"), "500") for number in range(100))
    assert reached <= 10


def test_a_failure_to_connect_counts_for_all(refused: str) -> None:
    """No request can be the cause of a refused connection, so one account is enough."""
    service = Service()
    for _ in range(5):
        service.call(origin("one", seed=1), refused)
    assert not service.call(origin("other"))


@pytest.mark.parametrize("kind", sorted(HELD))
def test_a_hold_after_a_request_with_parameters_is_its_own(kind: str) -> None:
    """A second account that gets one too makes it a hold for all."""
    service = Service()
    service.call(origin("bad", service_tier="flex"), kind)
    assert not service.call(origin("bad", service_tier="flex"))
    assert service.call(origin("good"))
    service.call(origin("bad", service_tier="flex", seed=1), kind)
    service.clock.now += 1
    service.call(origin("good", seed=1), kind)
    assert not service.call(origin("third"))


def test_a_probe_that_fails_by_its_own_fault_leaves_the_next_one_to_others() -> None:
    """After an outage the first good call closes the breaker, even if faulty calls come in between."""
    service = Service()
    breaker = service.target.target.breakers.shared
    for _ in range(5):
        breaker.record_failure(breaker.try_acquire_permit() or 0)
    service.clock.now += breaker.remaining_delay()
    service.call(origin("bad", seed=1), "500")
    assert service.call(origin("good"))
    assert breaker.is_closed


def test_success_with_the_same_parameters_lets_a_blocked_account_probe() -> None:
    """The target answers such requests again, so the account need not wait for its interval."""
    service = Service()
    for _ in range(6):
        service.call(origin("one", seed=1), "500")
    assert not service.call(origin("one", seed=1))
    assert service.call(origin("other", seed=2))
    assert service.call(origin("one", seed=1))


def test_the_breakers_of_origins_are_bounded() -> None:
    """A caller that invents parameters fills no memory."""
    service = Service()
    for number in range(1000):
        service.call(origin("one", extra_body_json=f'{{"p{number}": 1}}'), "500")
    assert len(service.target.target.breakers._own) <= 256  # noqa: SLF001 - no public count


def test_a_faulty_account_leaves_the_retries_of_others() -> None:
    """Each account has a budget of its own, and all together have ten times its free retries."""
    budgets = ModelBudgets(0, Clock())
    assert 30 == sum(budgets.of("bad").try_withdraw() for _ in range(1000))
    assert budgets.of("good").try_withdraw()
    for number in range(20):
        sum(budgets.of(f"account {number}").try_withdraw() for _ in range(30))
    assert not budgets.of("late").try_withdraw()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LocalResourcesExhausted("no file descriptor is left"), ["a"]),
        (LocalPortsExhausted("no local port is left"), ["a", "b"]),
        (LoopDetected(8), ["a"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_of_this_machine_counts_against_no_target(error: ParleyError, expected: list[str]) -> None:
    """Only ports are left for other targets; a loop would be the same at the next one."""
    clock = Clock()
    waiting = candidates(clock, "a", "b")
    FAILURES["local"] = lambda: error
    try:
        for _ in range(20):
            assert expected == Play({"a": ["local", "…"]}, clock=clock, account="one").of(waiting).called
    finally:
        del FAILURES["local"]


def test_a_probe_of_an_account_that_cannot_connect_has_failed(refused: str) -> None:
    """The interval doubles, although failures to connect otherwise count for all accounts together."""
    service = Service()
    one = origin("one")
    for _ in range(5):
        service.call(one, "500")
    service.clock.now += INITIAL_INTERVAL
    assert service.call(one, refused)
    service.clock.now += MAX_INTERVAL - 0.1
    assert not service.call(one)
    service.clock.now += 0.1
    assert service.call(one)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (CreateChatCompletionRequest(model="m", stream=True, user="u"), set()),
        (
            CreateChatCompletionRequest(seed=1, extra_body_json='{"x": 1, "y": 2}'),
            {"seed", "extra_body.x", "extra_body.y"},
        ),
    ],
)
def test_the_origin_has_the_names_of_parameters(request_: CreateChatCompletionRequest, expected: set[str]) -> None:
    """Values do not count: a new `seed` with each call would make each call an origin of its own."""
    assert expected == CallOrigin("a", request_).parameters


def test_the_origin_has_the_kinds_of_content() -> None:
    """A picture or a tool's answer may be what the target cannot handle."""
    message = Message(role="tool", tool_call_id="1")
    message.content.list_value.values.add().struct_value.update({"type": "image_url"})
    origin_ = CallOrigin("a", CreateChatCompletionRequest(), [Message(role="user"), message])
    assert {"messages.role=tool", "messages.tool_call_id", "messages.content.image_url"} == origin_.parameters
