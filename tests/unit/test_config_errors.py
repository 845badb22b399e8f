"""Errors of the configuration: path, line, expected value, and no secret."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from parley import config
from parley.config import ConfigError
from parley.config.loader import load, parse
from parley.config.types import field_types
from tests.unit.configurations import GOOD, ROUTED, without_lines


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "fallbacks: [two]",
            "fallbacks: [six]",
            'models[0].fallbacks[0]: no model has the id "six"; use one of: one, two',
        ),
        ("fallbacks: [two]", "fallbacks: [one]", 'models[0].fallbacks[0]: "one" is listed already; remove it'),
        ("fallbacks: [two]", "fallbacks: [two, two]", 'models[0].fallbacks[1]: "two" is listed already; remove it'),
        (
            "max_queued: 8}]}",
            "max_queued: 9}]}",
            "models[1].targets[1]: `max_concurrent` and `max_queued` must be equal to those in models[0].targets[0]",
        ),
        ("  eu: {prompt", "  us: {prompt", 'prices: no target is named "us"; use one of: a/x, eu, claude/c'),
        ("prompt: 0.5", "prompt: -1", "prices.a/x.prompt: "),
        ("attempts: 4", "attempts: 0", "models[0].retries.attempts: "),
        ("share: 0.5", "share: .nan", "models[0].retries.share: "),
        (
            "max_concurrent: 4, max_queued: 8}, {",
            "max_concurrent: 0, max_queued: 8}, {",
            "models[0].targets[0].max_concurrent: ",
        ),
        ("on_stream_failure: fail", "on_stream_failure: retry", "models[0].on_stream_failure: "),
        ("hedge: 800ms", "hedge: 0s", "models[0].hedge: "),
        ("coalesce: 50ms", "coalesce: 2s", "models[1].coalesce: must be `off` or a duration above 0 and up to 1s"),
        ("prefill: off", "prefill: maybe", "backends.a.prefill: "),
        ("path: /ok", "path: ok", "backends.a.health.path: "),
        ("connections: 5", "connections: 0", "backends.a.connections: "),
        ("{timeout: 1s}", "{path: /ok}", "backends.eu.health.path: "),
        ("dns:///parley.eu:50051", "parley eu", "backends.eu.target: "),
        ("provider: mistral, ", "", "backends.tail.provider: "),
        ("kind: anthropic", "kind: antropic", 'backends.claude.kind: is unknown; did you mean "anthropic"?'),
    ],
)
def test_an_error_in_routing_settings_names_its_path(old: str, new: str, line: str) -> None:
    """An error in backends, models or prices has its file, line and path, and no secret."""
    assert old in ROUTED
    with pytest.raises(ConfigError) as caught:
        parse(ROUTED.replace(old, new, 1), "f")
    assert f"f: {line}" in without_lines(caught.value)
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("kind: openai", "kind: opnai", 'f: backends.vllm.kind: is unknown; did you mean "openai"?'),
        ("local: {", '"../local": {', 'f: backends: "../local" is not a name; use up to 32 letters'),
        ("connect: 500ms", "connect: soon", "f: models[0].timeouts.connect: must be a duration: a number of seconds"),
        ("connect: 500ms", "connect: 0", "f: models[0].timeouts.connect: "),
        ("slots: 2", "slot: 2", 'f: backends.local.slot: is unknown; did you mean "slots"?'),
        ("connect: 500ms", "connect: .inf", "f: models[0].timeouts.connect: "),
        ("weight: 3", "weight: 0", "f: models[0].targets[0].weight: "),
        ("weight: 3", "weight: .inf", "f: models[0].targets[0].weight: "),
        ("requests_per_minute: 60}", "requests_per_minute: 0}", "f: limits.key.requests_per_minute: "),
        ("requests_per_minute: 60}", "requests_per_hour: 60}", "f: limits.key.requests_per_hour: "),
        ("tokens_per_minute: 100000", "tokens_per_minute: many", "f: limits.account.tokens_per_minute: "),
        ("tokens_per_minute: 100000", "tokens_per_minute: 1.5", "f: limits.account.tokens_per_minute: "),
        ("account: {", "model: {", "f: limits.model: "),
        ("http://10", "ftp://10", "f: backends.vllm.base_url: must be a URL"),
        ("http://10.0.0.5:8000", "https://", "f: backends.vllm.base_url: must be a URL"),
        ("http://10.0.0.5:8000", "http://a b", "f: backends.vllm.base_url: must be a URL"),
        ("http://10.0.0.5:8000", "http://a:99999", "f: backends.vllm.base_url: must be a URL"),
        ("http://10.0.0.5:8000", "http://[::1", "f: backends.vllm.base_url: must be a URL"),
        ("http://10.0.0.5:8000/v1", "https://u:secret-word@a/v1", "f: backends.vllm.base_url: must not have a user"),
        ("http://10.0.0.5:8000/v1", "https://a/v1?key=secret-word", "f: backends.vllm.base_url: must not have a query"),
        ("http://10.0.0.5:8000/v1", "https://a/v1#x", "f: backends.vllm.base_url: must not have a query"),
        ('"secret-word"', '"secret-word\\n"', "f: backends.vllm.api_key: must be one word of printable ASCII"),
        ('"secret-word"', '"secret-wörd"', "f: backends.vllm.api_key: must be one word of printable ASCII"),
        ('"secret-word"', '""', "f: backends.vllm.api_key: is empty; set it, or remove it"),
        ("id: two", "id: one", 'f: models[1].id: "one" is used twice; give each model its own id'),
        (
            "default_model: one",
            "default_model: six",
            'f: default_model: no model has the id "six"; use one of: one, two',
        ),
        (
            "[{backend: local}]",
            "[{backend: locl}]",
            'f: models[1].targets[0].backend: no backend is named "locl"; use one of: local, vllm',
        ),
        (
            "secret-word",
            "${PARLEY_NOT_SET}",
            "f: backends.vllm.api_key: the variable PARLEY_NOT_SET is not set; set it, or PARLEY_NOT_SET_FILE",
        ),
    ],
)
def test_an_error_names_its_path(old: str, new: str, line: str) -> None:
    """An error is one line with the file, the path and the expected value."""
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(old, new), "f")
    assert 1 == len(str(caught.value).splitlines())
    assert without_lines(caught.value).startswith(line)
    assert "secret-w" not in str(caught.value)


_WILD = """\
backends: {a: {kind: openai, base_url: "http://10.0.0.5/v1"}, p: {kind: parley, target: "other:9090"}}
models:
  - {id: "a/*", targets: [{backend: a, model: "*", rename: {max_tokens: max_new_tokens}, drop: [seed]}]}
  - {id: one, targets: [{backend: a, model: x}], aliases: [{id: old, retires: 2027-01-31}], fallbacks: [a/x]}
default_model: a/y
prices: {a/z: {prompt: 1, completion: 1}}
"""


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('"a/*"', '"a*/*"', 'models[0].id: may have one "*", at its end, for example "groq/*"'),
        ("model: x", 'model: "*"', 'models[1].targets[0].model: "*" needs a model whose id ends with "*"'),
        ('model: "*"', 'model: "*/*"', 'models[0].targets[0].model: may have one "*"; name the model'),
        ("{id: old,", "{id: one,", 'models[1].aliases[0].id: "one" is used twice; an alias needs an id of its own'),
        ("{id: old,", '{id: "o*",', 'models[1].aliases[0].id: an id with "*" has no aliases; remove it'),
        ("2027-01-31", "soon", "models[1].aliases[0].retires: must be a day, for example 2027-01-31"),
        ("[a/x]", '["a/*"]', 'models[1].fallbacks[0]: no model has the id "a/*"; use one of: a/*, one'),
        ("[a/x]", "[b/x]", 'models[1].fallbacks[0]: no model has the id "b/x"; use one of: a/*, one'),
        ("a/y", "b/y", 'default_model: no model has the id "b/y"; use one of: a/*, one'),
        ("a/z", "b/z", 'prices: no target is named "b/z"; use one of: a/*, a/x'),
        ("[seed]", "[n]", "models[0].targets[0].drop: `n` cannot be changed here; remove it"),
        ("max_new_tokens}", "messages}", "models[0].targets[0].rename: `messages` cannot be changed here; remove it"),
        (
            "max_new_tokens}",
            "limit, max_completion_tokens: limit}",
            "models[0].targets[0].rename.max_tokens: two parameters would get the name `limit`; keep one",
        ),
        (
            "{max_tokens: max_new_tokens}",
            "{developer: user}",
            "models[0].targets[0].rename.developer: the role can only",
        ),
        (
            "{backend: a, model: x}",
            "{backend: p, set: {seed: 1}}",
            "models[1].targets[0].set: a backend of kind parley takes parameters as they are; remove it",
        ),
        ("drop: [seed]", "accepts: {n: 0}", "models[0].targets[0].accepts.n: "),
        ("fallbacks: [a/x]", "metadata: {modalities: [smell]}", "models[1].metadata.modalities[0]: must be one of"),
    ],
)
def test_an_error_in_wildcards_aliases_and_parameters_names_its_path(old: str, new: str, line: str) -> None:
    """Wildcards, aliases, and what targets change in parameters are checked with the names that they refer to."""
    assert parse(_WILD, "f").default_model == "a/y"
    assert old in _WILD
    with pytest.raises(ConfigError) as caught:
        parse(_WILD.replace(old, new, 1), "f")
    assert f"f: {line}" in without_lines(caught.value)


@pytest.mark.parametrize("backend", ["{kind: any_llm, provider: mistral}", '{kind: parley, target: "other:9090"}'])
def test_coalesce_names_a_backend_that_cannot_collect(backend: str) -> None:
    """A model with `coalesce` has no backend that would ignore it; a model without it may have one."""
    text = GOOD.replace("{kind: llama_cpp, slots: 2}", backend)
    parse(text, "f")
    with pytest.raises(ConfigError, match=r'models\[0\].coalesce: "local" is a backend of kind \w+, which cannot'):
        parse(text.replace("- id: one\n", "- id: one\n    coalesce: 50ms\n"), "f")


def test_every_error_has_its_line() -> None:
    """Two errors are reported together, each on its own line."""
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace("weight: 3", "weight: 0").replace("slots: 2", "slots: 0"), "f")
    assert ["f:2: backends.local.slots", "f:6: models[0].targets[0].weight"] == [
        ":".join(line.split(":")[:3]) for line in str(caught.value).splitlines()
    ]


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [", "models: []\nbackends: {}\n", "\t"])
def test_invalid_files_are_rejected(text: str) -> None:
    """An empty file, a list and broken YAML are errors that name the file."""
    with pytest.raises(ConfigError, match=r"^f(:\d+)?: "):
        parse(text, "f")


def test_an_error_never_shows_a_secret() -> None:
    """An error about an API key does not contain the key."""
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace("api_key: ", "api_keys: "), "f")
    assert "secret-word" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace('"secret-word"', "secret-word: {{"), "f")
    assert "secret-word" not in str(caught.value)
    assert str(caught.value).startswith("f:3: not valid YAML: column ")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """The error of a missing file has the reason and the option that names the file."""
    missing = tmp_path / "none.yaml"
    with pytest.raises(ConfigError) as caught:
        load(missing)
    expected = f"{missing}: cannot be read (No such file or directory); name a readable YAML file with --config"
    assert expected == str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("slots: 2", "slots: two", "f:2: backends.local.slots: must be a whole number"),
        ("default_model: one", "default_modle: one", 'f:12: default_modle: is unknown; did you mean "default_model"?'),
        ("weight: 3", "zzz: 3", "f:6: models[0].targets[0].zzz: is unknown; use one of: backend, model, weight, "),
        ("kind: llama_cpp", "kind: zzz", "f:2: backends.local.kind: is unknown; use one of: openai, anthropic, "),
        ("{kind: llama_cpp, slots: 2}", "{slots: 2}", "f:2: backends.local.kind: is required; use one of: openai, "),
        ("sessions: off", "sessions: never", "f:11: models[1].sessions: must be one of 'auto', 'on_request' or 'off'"),
        ("targets: [{backend: local}]", "targets: local", "f:10: models[1].targets: must be a list"),
        ("targets: [{backend: local}]", "targets: []", "f:10: models[1].targets: must have at least 1 entry"),
        ("targets: [{backend: local}]", "targets: [local]", "f:10: models[1].targets[0]: must be a mapping"),
        ("default_model: one", "prices: off", "f:12: prices: must be a mapping"),
        (
            "local: {kind: llama_cpp, slots: 2}",
            "local: {kind: parley, target: 'h:1', health: off}",
            "f:2: backends.local.health: must be a mapping; remove it, because it is off where it is absent",
        ),
        ("    targets: [{backend: local}]\n", "", "f:9: models[1].targets: is required"),
        ("id: two", "id: 2", "f:9: models[1].id: must be text; put it in quotes"),
        ("id: two", "id: [two", "f:10: not valid YAML: column "),
        ("id: two", "id: two\n    id: three", "f:10: models[1].id: is set twice, first in line 9; remove one of them"),
        ("limits:", "default_model: two\nlimits:", "f:13: default_model: is set twice, first in line 12; remove one"),
    ],
)
def test_an_error_names_its_line_and_what_is_allowed(old: str, new: str, line: str) -> None:
    """An error has file, line and path, then the allowed values or the nearest valid name."""
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(old, new), "f")
    assert 1 == len(str(caught.value).splitlines())
    assert str(caught.value).startswith(line)


MODELS: dict[str, Any] = {
    "backends.a": config.OpenAIBackend,
    "backends.claude": config.AnthropicBackend,
    "backends.eu": config.ParleyBackend,
    "models.0": config.Model,
    "models.0.targets.0": config.Target,
}
WRONG = ["zzz", -1, 0, 1.5, float("nan"), True, None, [], ["zzz"], {}, {"zzz": 1}, 10**400, "1" * 5000]


@pytest.mark.parametrize("path", MODELS)
@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_errors_contain_no_text_of_pydantic(path: str, wrong: Any) -> None:
    """For every wrong value at every field, the error is plain and does not repeat the value."""
    data = yaml.safe_load(ROUTED)
    entry = data
    for part in path.split("."):
        entry = entry[int(part) if part.isdigit() else part]
    entry |= dict.fromkeys(field_types(MODELS[path]), wrong)
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_dump(data), "f")
    for words in ("Input should", "not permitted", "nable to parse", "Field required", "valid ", "1111"):
        assert words not in str(caught.value)


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr"


@pytest.mark.parametrize(
    ("budgets", "problem"),
    [
        ("{warn_at: [0.8, 0]}", "budgets.warn_at[1]: "),
        (f'{{webhook: {{url: "http://example.com/secret-path", secret: "{SECRET}"}}}}', "must begin with https://"),
        (f'{{webhook: {{url: "https://u:p@example.com/", secret: "{SECRET}"}}}}', "must not have a user"),
        (f'{{webhook: {{url: "example.com/secret-path", secret: "{SECRET}"}}}}', "must be a URL, for example"),
        (f'{{webhook: {{url: "https://example.com/", secret: "{SECRET[6:]}"}}}}', "openssl rand -base64 32"),
        ('{webhook: {url: "https://example.com/", secret: "whsec_c2VjcmV0"}}', "openssl rand -base64 32"),
        ('{webhook: {url: "https://example.com/", secret: "whsec_näh"}}', "openssl rand -base64 32"),
    ],
)
def test_errors_of_budgets(budgets: str, problem: str) -> None:
    """A wrong budget is one line that says what to write, and repeats neither the URL nor the secret."""
    with pytest.raises(ConfigError) as error:
        parse(f"{GOOD}budgets: {budgets}\n", "test.yaml")
    assert problem in str(error.value)
    assert 1 == len(str(error.value).splitlines())
    for secret in ("secret-path", "u:p", SECRET[6:], "c2VjcmV0", "näh"):
        assert secret not in str(error.value)


@pytest.mark.parametrize(
    "url", ["https://example.com:8443/x?token=y", "http://127.0.0.1:9/x", "http://[::1]/", "http://localhost/"]
)
def test_webhooks(url: str) -> None:
    """A webhook is HTTPS, or HTTP on this machine."""
    loaded = parse(f'{GOOD}budgets: {{webhook: {{url: "{url}", secret: "{SECRET}"}}}}\n', "test.yaml")
    assert loaded.budgets.webhook is not None
    assert (url, 33) == (loaded.budgets.webhook.url, len(loaded.budgets.webhook.signing_key))
