"""Tests of the order in which a model's targets are tried."""

from collections import Counter

from parley.config import Model, Target
from parley.core.routing.balancing import order_by_weight
from parley.core.routing.targets import Candidate, LiveTarget
from tests.rpc.scripted import ScriptedBackend


def _candidates(*targets: Target) -> list[Candidate]:
    model = Model(id="m", targets=list(targets))
    return [Candidate(model, target, LiveTarget(target, ScriptedBackend(), None)) for target in targets]


def test_weights_are_shares_of_the_calls() -> None:
    """The share of calls that prefer a target is its share of the weights, with and without a session."""
    candidates = _candidates(Target(backend="a", weight=3), Target(backend="b", weight=1))
    for sessions in ([None] * 4000, [f"session-{number}" for number in range(4000)]):
        first = Counter(order_by_weight(candidates, session)[0].target.name for session in sessions)
        assert 0.70 < first["a"] / 4000 < 0.80


def test_a_session_keeps_its_target_when_another_target_is_removed() -> None:
    """Removing a target moves only its own sessions, each to the target that was second in the session's order."""
    candidates = _candidates(*(Target(backend=name) for name in "abc"))
    for number in range(500):
        before = [one.target.name for one in order_by_weight(candidates, f"s{number}")]
        after = [one.target.name for one in order_by_weight(candidates[:2], f"s{number}")]
        assert after == [name for name in before if name != "c"]
