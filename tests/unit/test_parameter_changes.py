"""The changes of a target beside those of its backend."""

from typing import Any

import pytest

from parley.config.loader import parse
from parley.core.ports.parameters import TargetParameters

CONFIG = """\
backends:
  one: {{vendor: mistral, api_key: k, default: {{safe_prompt: true}}, set: {{top_p: 1}}, accepts: {{n: 4, stop: 2}}}}
models: [{{id: m, targets: [{{backend: one{target}}}]}}]
"""
BODY = {
    "messages": [{"role": "developer", "name": "a", "content": "x"}, {"role": "user", "name": "b", "content": "y"}],
    "max_completion_tokens": 5,
    "seed": 7,
    "user": "u",
}
OF_BACKEND = {"max_tokens": 5, "random_seed": 7, "safe_prompt": True, "top_p": 1}


def changed(target: str) -> dict[str, Any]:
    """Returns the body that a target of a backend with a preset gets."""
    config = parse(CONFIG.format(target=target), "f")
    body = BODY | {"messages": [dict(one) for one in BODY["messages"]]}  # type: ignore[attr-defined]
    parameters = TargetParameters.of(config.effective(config.models[0].targets[0]))
    assert parameters is not None
    parameters.apply(body)
    return body


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("", OF_BACKEND),
        (
            ", rename: {max_tokens: max_completion_tokens}",
            {"max_completion_tokens": 5, "random_seed": 7, "safe_prompt": True, "top_p": 1},
        ),
        (
            ", rename: {max_completion_tokens: max_completion_tokens}",
            {"max_completion_tokens": 5, "random_seed": 7, "safe_prompt": True, "top_p": 1},
        ),
        (", rename: {user: user}", OF_BACKEND | {"user": "u"}),
        (", drop: [seed]", {"max_tokens": 5, "safe_prompt": True, "top_p": 1}),
        (", drop: [safe_prompt, top_p]", {"max_tokens": 5, "random_seed": 7}),
        (", default: {top_p: 0.5}", OF_BACKEND | {"top_p": 0.5}),
        (", set: {safe_prompt: false}", OF_BACKEND | {"safe_prompt": False}),
        (", default: {safe_prompt: false}, set: {top_p: 0.5}", OF_BACKEND | {"safe_prompt": False, "top_p": 0.5}),
    ],
)
def test_a_target_has_the_changes_of_its_backend_beside_its_own(target: str, expected: dict[str, Any]) -> None:
    """Those of the target win; a parameter that it renames to its own name stays as it is."""
    body = changed(target)
    messages = body.pop("messages")
    assert expected == body
    assert [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}] == messages


def test_a_role_can_keep_its_name() -> None:
    """A target whose server knows developers undoes the change of its backend."""
    for target in (", roles: {developer: developer}", ", rename: {developer: developer}"):
        assert "developer" == changed(target)["messages"][0]["role"]


def test_the_limits_of_a_backend_hold_where_its_target_has_none() -> None:
    """Each limit of the target replaces that of the backend."""
    config = parse(CONFIG.format(target=", accepts: {n: 1, tools: 0}"), "f")
    accepts = config.effective(config.models[0].targets[0]).accepts
    assert (1, 2, 0, None) == (accepts.n, accepts.stop, accepts.tools, accepts.images)
