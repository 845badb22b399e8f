"""The configuration of guards: what is wrong is named with its line and field."""

import pytest

from parley.config import Config, ConfigError
from parley.config.loader import parse

BASE = """\
backends: {{s: {{kind: openai, base_url: "http://127.0.0.1:1/v1"}}}}
models:
  - {{id: a, targets: [{{backend: s}}], guards: {names}}}
guards:
  g: {guard}
"""
OWN = "has no meaning for a guard with patterns and secrets; remove it"


def load(guard: str, names: str = "[g]") -> Config:
    """Loads a configuration with one guard."""
    return parse(BASE.format(guard=guard, names=names), "p.yaml")


@pytest.mark.parametrize(
    ("guard", "error"),
    [
        ("{}", "guards.g: needs either `address`, or `patterns` or `secrets`"),
        ('{address: "x:1", secrets: true}', "guards.g: needs either `address`, or `patterns` or `secrets`"),
        ('{address: "a b"}', 'guards.g.address: must be an address without spaces, for example "guard:50060"'),
        ('{address: "x:1", action: refuse}', "guards.g.action: has no meaning for a guard with a service; remove it"),
        ("{secrets: true, tls: true}", f"guards.g.tls: {OWN}"),
        ("{secrets: true, deadline: 2s}", f"guards.g.deadline: {OWN}"),
        ("{secrets: true, history: 2}", f"guards.g.history: {OWN}"),
        ('{patterns: ["a", "b*"]}', "guards.g.patterns[1]: matches the empty text; require at least one character"),
        (
            '{patterns: ["(?=a)"]}',
            "guards.g.patterns[0]: is not a regular expression of RE2 (invalid perl operator: (?=); correct it",
        ),
        ('{address: "x:1", ca: /a}', "guards.g.ca: needs `tls: true`"),
        (
            '{address: "x:1", tls: true, client_key: /a}',
            "guards.g.client_key: needs `client_certificate`; set it",
        ),
        (
            '{address: "x:1", headers: {Authorization: b}}',
            "guards.g.headers.Authorization: is not a name of metadata; use lower-case letters, digits, `_`, `-`, `.`",
        ),
        ("{secrets: true, window: 0}", "guards.g.window: must be at least 1"),
        (
            "{secrets: true, overlap: 99}",
            "guards.g.overlap: must be at least 100 with `secrets`, or parts of them pass between windows",
        ),
        ("{secrets: true, on_failure: shut}", "guards.g.on_failure: must be one of 'closed' or 'open'"),
        (
            "{secrets: true, before: false, after: false}",
            "guards.g.after: is false, as `before` is; a guard checks at least one of the two",
        ),
    ],
)
def test_an_error_names_line_and_field(guard: str, error: str) -> None:
    """Each mistake is reported with the line of the guard and the path of the field."""
    with pytest.raises(ConfigError) as caught:
        load(guard)
    assert f"p.yaml:5: {error}" == str(caught.value)


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ("[h]", 'models[0].guards[0]: no guard is named "h"; use one of: g'),
        ("[g, g]", 'models[0].guards[1]: "g" is listed already; remove it'),
    ],
)
def test_a_model_names_guards_that_exist(names: str, error: str) -> None:
    """A model's list has each of the defined guards at most once."""
    with pytest.raises(ConfigError) as caught:
        load("{secrets: true}", names)
    assert f"p.yaml:3: {error}" == str(caught.value)


def test_media_follow_the_failure() -> None:
    """What a guard cannot read is refused by one that is closed on failure, unless `media` says otherwise."""
    guards = [
        load(f"{{secrets: true, {more}}}").guards["g"]
        for more in ("before: true", "on_failure: open", "media: pass", "on_failure: open, media: refuse")
    ]
    assert [True, False, False, True] == [guard.refuses_media for guard in guards]
