"""Tests of the ids that requests name: wildcards, aliases, and the models that a key may use."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from parley.config import Metadata
from parley.config.loader import parse
from parley.core.errors import ModelNotFound, ModelRetired, ParleyError, UpstreamMisconfigured, UpstreamUnavailable
from parley.core.ports import Caller
from parley.core.routing import unknown_names
from parley.core.routing.execution import Execution
from parley.core.routing.overrides import TargetOverrides
from parley.core.routing.router import Router
from parley.core.routing.targets import MAX_NAMES
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from tests.rpc.scripted import ScriptedBackend
from tests.unit.routing.routes import ANYONE, Clock

_TODAY = datetime.now(UTC).date()
CONFIG = f"""
backends:
  a: {{kind: openai, base_url: "http://127.0.0.1:1/v1"}}
  b: {{kind: openai, base_url: "http://127.0.0.1:1/v1"}}
models:
  - {{id: "a/*", targets: [{{backend: a, model: "*"}}], fallbacks: ["b/*"], hedge: off}}
  - {{id: "a/meta/*", targets: [{{backend: a, model: "hub-*", max_concurrent: 1}}], defaults: {{temperature: 0}}}}
  - {{id: a/exact, targets: [{{backend: a, model: exact}}]}}
  - {{id: "b/*", targets: [{{backend: b, model: "*"}}]}}
  - id: named
    targets: [{{backend: a, model: one}}]
    fallbacks: [b/two]
    aliases:
      - {{id: old, retires: {_TODAY + timedelta(days=1)}}}
      - {{id: retired, retires: {_TODAY - timedelta(days=1)}}}
      - {{id: other}}
prices:
  a/*: {{prompt: 1, completion: 1}}
  a/dear: {{prompt: 5, completion: 5}}
"""


class _Routes:
    """A router of two scripted backends."""

    def __init__(self, text: str = CONFIG) -> None:
        self.clock = Clock()
        self.a, self.b = ScriptedBackend(), ScriptedBackend()
        self.router = Router(parse(text, "test.yaml"), {"a": self.a, "b": self.b}, self.clock)

    def call(self, model: str, account: str = "ada") -> Execution:
        """Completes a call of a model."""
        request = CreateChatCompletionRequest(model=model)
        found = self.router.model(ANYONE, model)
        execution = self.router.new_execution(
            found, request, request.messages, session_id=None, deadline=None, account=account
        )
        asyncio.run(execution.complete())
        return execution


@pytest.mark.parametrize(
    ("requested", "label", "upstream"),
    [
        ("a/qwen/qwen3-8b:free", "a/*", "qwen/qwen3-8b:free"),
        ("a/meta/llama-4", "a/meta/*", "hub-llama-4"),
        ("a/exact", "a/exact", "exact"),
    ],
)
def test_an_id_names_an_exact_model_or_else_the_longest_wildcard(requested: str, label: str, upstream: str) -> None:
    """The rest of the id is the target's own name, and the answer has the id that was requested."""
    routes = _Routes()
    execution = routes.call(requested)
    assert (requested, label) == (execution.model_id, routes.router.model(ANYONE, requested).label)
    assert [upstream] == [call.model for call in routes.a.calls]


_NO_NAMES = [
    *(
        "a/",
        "a/*",
        "*",
        "a/x*y",
        "c/x",
        "A/x",
        "a/x ",
        " a/x",
        "a/x y",
        "a/x\ny",
        "a/x\0y",
        "a/é",
        "a/\u202ex",
        "a/" + 257 * "x",
    ),
    *(
        "a/../v1/files",
        "a/x/..",
        "a/./x",
        "a/x//y",
        "a//x",
        "a/x/",
        "a/x%2Fy",
        "a/x?y",
        "a/x#y",
        "a/x\\y",
        "a/{x}",
        "/a/x",
    ),
    "a/" + 10_000 * "x",
]


@pytest.mark.parametrize("name", _NO_NAMES)
def test_a_rest_that_is_no_name_is_an_unknown_model(name: str) -> None:
    """The rest has only characters that names of models have: it may become part of the path of a URL."""
    with pytest.raises(ModelNotFound):
        _Routes().router.model(ANYONE, name)


def test_metrics_and_usage_have_the_names_of_the_configuration() -> None:
    """The receipt has what the caller requested; labels have the wildcard, so that callers cannot add series."""
    routes = _Routes()
    execution = routes.call("a/dear")
    (attempt,) = execution.attempts
    assert ("a/dear", "dear") == (attempt.model_id, attempt.target_model)
    assert ("a/*", "a/*") == (attempt.model_label, attempt.target_label)
    assert ("a/dear", "dear") == (execution.receipt().attempts[0].model, execution.receipt().attempts[0].target_model)
    assert ["a/*", "a/hub-*", "a/exact", "b/*", "a/one"] == [target.name for target in routes.router.targets]


def test_a_name_has_its_own_price_or_that_of_the_wildcard() -> None:
    """Limits of costs reserve the highest price of the name and of its fallbacks."""
    routes = _Routes()
    prices = [routes.router.highest_price(routes.router.model(ANYONE, name)) for name in ("a/dear", "a/cheap")]
    assert [5, 1] == [price.prompt for price in prices if price]


def test_the_fallback_of_a_wildcard_gets_the_same_name() -> None:
    """The rest of the id replaces the `*` of the fallback."""
    routes = _Routes()
    routes.a.answer = lambda _: UpstreamMisconfigured("no", cause="HTTP 401: wrong key")
    assert "b/qwen" == routes.call("a/qwen").model_id
    assert ["qwen"] == [call.model for call in routes.b.calls]


def test_a_fallback_may_be_a_name_of_a_wildcard() -> None:
    """A model falls back to one name of a wildcard."""
    routes = _Routes()
    routes.a.answer = lambda _: UpstreamMisconfigured("no", cause="HTTP 401: wrong key")
    assert "b/two" == routes.call("named").model_id


def test_a_name_that_the_backend_does_not_know_is_the_caller_s_fault() -> None:
    """The caller gets 404, and the target stays available for all other names, however many accounts are wrong."""
    routes = _Routes()
    routes.a.answer = routes.b.answer = lambda _: _unknown()
    for number in range(20):
        with pytest.raises(ModelNotFound, match='Unknown model "a/typo"'):
            routes.call("a/typo", f"account-{number}")
    assert 20 == len(routes.a.calls)
    assert all(target.admits() for target in routes.router.targets)


def _unknown() -> ParleyError:
    error = UpstreamMisconfigured("not available", cause="HTTP 404: The model `typo` does not exist")
    error.is_suspect = True
    return error


def test_a_name_that_fails_stops_no_other_name() -> None:
    """Each name has breakers of its own; administrators see that one is open, and close it."""
    routes = _Routes()
    routes.a.answer = lambda call: _refused() if call.model == "broken" else ScriptedBackend().answer(call)
    for _ in range(5):
        routes.call("a/broken")
    before = len(routes.a.calls)
    assert ("b/broken", "a/fine") == (routes.call("a/broken").model_id, routes.call("a/fine").model_id)
    assert ["fine"] == [call.model for call in routes.a.calls[before:]]
    (target,) = [one for one in routes.router.targets if one.name == "a/*"]
    assert not target.shown_breakers.shared.is_closed
    routes.router.close("a/*")
    assert target.shown_breakers.shared.is_closed
    routes.a.answer = ScriptedBackend().answer
    assert "a/broken" == routes.call("a/broken").model_id


def _refused() -> ParleyError:
    error = UpstreamUnavailable("refused")
    error.is_unreachable = True
    error.retries = 2
    return error


def test_health_and_the_administrator_s_decision_hold_for_all_names() -> None:
    """A name that is known already, and a new one, get no call while the backend is unhealthy or the target opened."""
    routes = _Routes()
    routes.call("a/known")
    (target,) = [one for one in routes.router.targets if one.name == "a/*"]
    target.set_health(healthy=False)
    assert ["b/known", "b/new"] == [routes.call(name).model_id for name in ("a/known", "a/new")]
    target.set_health(healthy=True)
    assert "a/known" == routes.call("a/known").model_id
    routes.router.override(TargetOverrides(opened=frozenset({"a/*"})))
    assert ["b/known", "b/other"] == [routes.call(name).model_id for name in ("a/known", "a/other")]


def test_all_names_share_the_slots_of_the_target() -> None:
    """`max_concurrent` counts the calls of the target, whatever names they have."""
    routes = _Routes()

    async def acquire() -> list[bool]:
        names = [routes.router.candidates("a/meta/*")[0].target.named(name, lambda _: None) for name in ("x", "y")]
        return [await target.acquire_slot(1) for target in names]

    assert [True, False] == asyncio.run(acquire())


def test_the_state_of_names_is_bounded() -> None:
    """The name that was used least recently is forgotten."""
    routes = _Routes()
    (target,) = [one for one in routes.router.targets if one.name == "a/*"]
    first = target.named("first", lambda _: None)
    for number in range(MAX_NAMES - 1):
        target.named(f"name-{number}", lambda _: None)
    assert first is target.named("first", lambda _: None)
    target.named("one-more", lambda _: None)
    assert first is target.named("first", lambda _: None)
    assert MAX_NAMES == len(target._names)  # noqa: SLF001 - its size


def test_an_alias_stands_for_its_model_until_it_retires() -> None:
    """Answers name the model. A retired alias is unknown, and the error names the id to use."""
    router = _Routes().router
    assert ["named", "named"] == [router.model(ANYONE, name).id for name in ("old", "other")]
    assert (_TODAY + timedelta(days=1), "named") == router.retirement("old")
    assert [None, None] == [router.retirement(name) for name in ("named", "other")]
    with pytest.raises(ModelRetired, match=r'has retired on .+; use "named"$'):
        router.model(ANYONE, "retired")
    assert "named" == router.model(ANYONE, "retired", of_session=True).id


@pytest.mark.parametrize(
    ("models", "allowed", "denied"),
    [
        ({"a/*"}, ["a/x", "a/exact", "a/meta/y"], ["b/x", "named"]),
        ({"a/qwen"}, ["a/qwen"], ["a/x", "a/qwen2"]),
        ({"old"}, ["old", "named", "other"], ["a/x"]),
        ({"named"}, ["old", "named"], ["a/exact"]),
    ],
)
def test_a_key_may_list_wildcards_names_and_aliases(models: set[str], allowed: list[str], denied: list[str]) -> None:
    """An alias and its model stand for each other."""
    router, caller = _Routes().router, Caller("ada", "key_1", frozenset(models))
    assert all(router.model(caller, name) for name in allowed)
    for name in denied:
        with pytest.raises(ModelNotFound):
            router.model(caller, name)


def test_the_list_of_models_has_the_known_names_of_a_wildcard() -> None:
    """They are those of the backend's list and of the key; without any, the wildcard or the key's part of it."""
    router = _Routes().router
    narrow = Caller("ada", "key_1", frozenset({"b/meta/*", "a/meta/x*", "c/*"}))
    assert ["a/meta/x*", "b/meta/*"] == [model.id for model in router.models(narrow)]
    assert ["a/*", "a/meta/*", "a/exact", "b/*", "named"] == [model.id for model in router.models(ANYONE)]
    router.listed("a", {"qwen": Metadata(), "hub-llama": Metadata(), "exact": Metadata()})
    listed = [model.id for model in router.models(ANYONE)]
    assert ["a/qwen", "a/hub-llama", "a/meta/llama", "a/exact", "b/*", "named"] == listed
    caller = Caller("ada", "key_1", frozenset({"a/mine", "b/*"}))
    assert ["a/mine", "b/*"] == [model.id for model in router.models(caller)]
    caller = Caller("ada", "key_1", frozenset({"a/q*"}))
    assert ["a/qwen"] == [model.id for model in router.models(caller)]


def test_a_list_of_many_names_forgets_no_state() -> None:
    """What is listed of a model is read without its targets."""
    routes = _Routes()
    (target,) = [one for one in routes.router.targets if one.name == "a/*"]
    used = target.named("used", lambda _: None)
    routes.router.listed("a", {f"name-{number}": Metadata(name=str(number)) for number in range(2 * MAX_NAMES)})
    for model in routes.router.models(ANYONE):
        routes.router.metadata(model), routes.router.price(model)
    assert used is target.named("used", lambda _: None)
    assert "7" == routes.router.metadata(routes.router.model(ANYONE, "a/name-7")).name
    routes.router.listed("a", {})
    assert routes.router.metadata(routes.router.model(ANYONE, "a/name-7")).name is None


@pytest.mark.parametrize(
    ("cause", "is_found"),
    [
        ("HTTP 404", False),
        ("HTTP 400: The model `x` does not exist", False),
        ("HTTP 400: model_not_found", False),
        ("HTTP 400: x is not a valid model ID", False),
        ("HTTP 401: invalid API key", True),
        ("HTTP 403: your organization must be verified", True),
    ],
)
def test_what_shows_that_a_backend_does_not_know_a_name(cause: str, is_found: bool) -> None:
    """Faults of the key, the region or the account are the operator's."""
    error = unknown_names.as_not_found("a/x", UpstreamMisconfigured("no", cause=cause))
    assert is_found != isinstance(error, ModelNotFound)


def test_a_fallback_that_is_unknown_is_the_operator_s_fault() -> None:
    """The caller has not chosen its name, if the configuration has."""
    routes = _Routes()
    routes.a.answer = routes.b.answer = lambda _: _unknown()
    with pytest.raises(UpstreamMisconfigured):
        routes.call("named")
