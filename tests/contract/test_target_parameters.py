"""What a target changes in the parameters of a request, as the vendor's server receives it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from parley.backends.anthropic.backend import Anthropic
from parley.backends.any_llm.request import arguments
from parley.backends.extra_body.policy import ExtraBodyPolicy
from parley.backends.openai.backend import OpenAI
from parley.config import Target
from parley.core.errors import AddedParameterRejected, ParleyError, UpstreamRejected
from parley.core.ports import Backend
from parley.core.ports.parameters import TargetParameters
from parley.core.routing.added_parameters import as_misconfigured
from tests.contract.backends import call
from tests.upstream import ScriptedUpstream


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """A server that answers every request."""
    with ScriptedUpstream() as server:
        yield server


def _openai(upstream: ScriptedUpstream) -> Backend:
    return OpenAI(upstream.url, extra_body=ExtraBodyPolicy({}))


async def _sent(made: Backend, upstream: ScriptedUpstream, target: dict[str, Any], **fields: Any) -> Any:
    """Returns the body that the server got from a call to the target."""
    parameters = TargetParameters.of(Target(backend="b", **target))
    try:
        await made.complete(replace(call(**fields), parameters=parameters))
    except ParleyError:
        pass  # the answer of the server is not that of each vendor
    finally:
        await made.close()
    return upstream.requests[-1].json


@pytest.mark.parametrize(
    ("target", "fields", "expected"),
    [
        ({"rename": {"max_tokens": "max_completion_tokens"}}, {"max_tokens": 5}, {"max_completion_tokens": 5}),
        (
            {"rename": {"max_completion_tokens": "max_tokens"}},
            {"max_tokens": 5, "max_completion_tokens": 6},
            {"max_tokens": 5},
        ),
        ({"rename": {"seed": "user", "user": "seed"}}, {"seed": 5, "user": "u"}, {"seed": "u", "user": 5}),
        ({"drop": ["seed", "user"]}, {"seed": 5, "temperature": 0.5}, {"temperature": 0.5}),
        ({"drop": ["vendor"]}, {"extra_body": {"vendor": 1}}, {}),
        ({"default": {"top_k": 4, "seed": 1}}, {"seed": 5}, {"seed": 5, "top_k": 4}),
        ({"default": {"max_tokens": 1}}, {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        (
            {"set": {"store": False, "reasoning_effort": "low"}},
            {"reasoning_effort": "high", "store": True},
            {"store": False, "reasoning_effort": "low"},
        ),
        (
            {"drop": ["seed"], "rename": {"user": "seed"}, "default": {"seed": "d"}, "set": {"user": "s"}},
            {"seed": 5, "user": "u"},
            {"seed": "u", "user": "s"},
        ),
    ],
)
async def test_parameters_are_dropped_renamed_added_and_set(
    upstream: ScriptedUpstream, target: dict[str, Any], fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    """The steps have this order, and a parameter with the new name already stays."""
    body = await _sent(_openai(upstream), upstream, target, **fields)
    assert expected == {name: value for name, value in body.items() if name not in {"model", "messages"}}


async def test_the_role_of_developers_is_renamed(upstream: ScriptedUpstream) -> None:
    """`developer: system` is for servers that know no developer."""
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    body = await _sent(_openai(upstream), upstream, {"rename": {"developer": "system"}}, messages=messages)
    assert ["system", "user"] == [message["role"] for message in body["messages"]]


async def test_the_names_are_those_of_the_api_of_the_backend(upstream: ScriptedUpstream) -> None:
    """A backend with another API than OpenAI's gets the changes in its own body."""
    made = Anthropic(upstream.url, None, 100)
    body = await _sent(made, upstream, {"default": {"top_k": 4}, "set": {"thinking": {"type": "disabled"}}})
    assert (4, {"type": "disabled"}, 100) == (body["top_k"], body["thinking"], body["max_tokens"])


def test_the_arguments_of_a_package_have_the_changes() -> None:
    """A parameter that the package does not know becomes a part of the body, where it cannot redirect the call."""
    target = Target(backend="b", rename={"max_tokens": "max_completion_tokens"}, set={"top_k": 4, "api_base": "x"})
    made = replace(call(max_tokens=5), parameters=TargetParameters.of(target))
    found = arguments(made, stream=False, translates=True)
    assert (5, {"top_k": 4, "api_base": "x"}) == (found["max_completion_tokens"], found["extra_body"])


@pytest.mark.parametrize(
    ("param", "fields", "cause"),
    [
        ("reasoning_effort", {}, "`set.reasoning_effort` of the target is refused"),
        ("top_k", {}, "`default.top_k` of the target is refused"),
        ("top_k", {"extra_body": {"top_k": 1}}, None),
        ("temperature", {"temperature": 1}, None),
    ],
)
def test_the_operator_answers_for_what_the_target_adds(param: str, fields: dict[str, Any], cause: str | None) -> None:
    """A rejection of an added parameter is a misconfiguration; the log names the setting."""
    target = Target(backend="b", set={"reasoning_effort": "low"}, default={"top_k": 4})
    made = replace(call(**fields), parameters=TargetParameters.of(target))
    error = as_misconfigured(made, UpstreamRejected("no", param=param))
    assert (cause is not None) == isinstance(error, AddedParameterRejected)
    assert cause is None or (error.cause or "").startswith(cause)


def test_an_error_about_a_renamed_parameter_has_the_name_that_the_caller_knows() -> None:
    """The caller has sent another name than the server."""
    target = Target(backend="b", rename={"max_tokens": "max_new_tokens"})
    made = replace(call(max_tokens=5), parameters=TargetParameters.of(target))
    assert "max_tokens" == as_misconfigured(made, UpstreamRejected("too many", param="max_new_tokens")).param
