"""Values and defaults of the configuration."""

import os
import pickle
from pathlib import Path

import pytest

from parley.config import LimitsConfig, LlamaCppBackend, OpenAIBackend
from parley.config.loader import load, parse
from parley.config.types import ConfigError
from tests.unit.configurations import GOOD, ROUTED


def test_without_a_file_the_embedded_model_answers() -> None:
    """The default configuration has one model, `smollm2`, on llama.cpp."""
    config = load(None)
    assert ["smollm2"] == [model.id for model in config.models]
    assert "smollm2" == config.default_model
    assert isinstance(config.backends[config.models[0].targets[0].backend], LlamaCppBackend)


def test_a_file_is_read(tmp_path: Path) -> None:
    """Backends, models, targets and durations have the values of the file."""
    (tmp_path / "parley.yaml").write_text(GOOD)
    config = load(tmp_path / "parley.yaml")
    local, vllm = config.backends["local"], config.backends["vllm"]
    assert isinstance(local, LlamaCppBackend)
    assert isinstance(vllm, OpenAIBackend)
    assert (2, "http://10.0.0.5:8000/v1") == (local.slots, vllm.base_url)
    one, two = config.models
    assert [("vllm", "qwen3-8b", 3.0), ("local", "", 1.0)] == [(t.backend, t.model, t.weight) for t in one.targets]
    times = one.timeouts
    assert (0.5, 5.0, 600.0, 7200.0) == (times.connect, times.first_token, times.stream_idle, times.total)
    assert ("auto", "off") == (one.sessions.mode, two.sessions.mode)
    assert {"temperature": 0.7} == one.defaults


def test_a_configuration_survives_pickling() -> None:
    """A configuration that a worker receives equals the original."""
    config = parse(GOOD, "f")
    assert config == pickle.loads(pickle.dumps(config))


def test_routing_settings_are_read() -> None:
    """Backends of every kind, fallbacks, retries, slots and prices have the values of the file, in a worker too."""
    config = parse(ROUTED, "f")
    one, two = config.models
    assert (["two"], 4, 0.5, "fail", 0.8, "off") == (
        one.fallbacks,
        one.retries.attempts,
        one.retries.share,
        one.on_stream_failure,
        one.hedge,
        one.coalesce,
    )
    assert ([], 6, 0.2, "continue", "auto", 0.05) == (
        two.fallbacks,
        two.retries.attempts,
        two.retries.share,
        two.on_stream_failure,
        two.hedge,
        two.coalesce,
    )
    assert ["a/x", "eu"] == [target.name for target in one.targets] == list(config.prices)
    assert ["openai", "anthropic", "parley", "any_llm"] == [backend.kind for backend in config.backends.values()]
    assert config == pickle.loads(pickle.dumps(config))
    assert "secret-word" not in repr(config)


def test_limits_are_read() -> None:
    """Each limit is optional. Without the section there are no limits."""
    limits = parse(GOOD, "f").limits
    assert (60, None) == (limits.key.requests_per_minute, limits.key.tokens_per_minute)
    assert (600, 100000) == (limits.account.requests_per_minute, limits.account.tokens_per_minute)
    assert LimitsConfig() == load(None).limits


@pytest.mark.parametrize("word", ["off", "false", '"off"'])
def test_sessions_off_is_accepted_as_a_boolean(word: str) -> None:
    """`sessions: off` means `off`, although YAML 1.1 parses it as false."""
    config = parse(GOOD.replace("sessions: off", f"sessions: {word}"), "f")
    assert "off" == config.models[1].sessions.mode


def test_environment_variables_are_replaced() -> None:
    """`${NAME}` is replaced by the environment variable, also within a text."""
    config = parse(GOOD.replace("secret-word", "a-${PATH}-b"), "f")
    vllm = config.backends["vllm"]
    assert isinstance(vllm, OpenAIBackend)
    assert f"a-{os.environ['PATH']}-b" == vllm.api_key


def test_a_value_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`${NAME}` is the content of the file that NAME_FILE names, without its line break; NAME has priority."""
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    monkeypatch.setenv("PARLEY_TEST_KEY_FILE", str(secret))
    text = GOOD.replace("secret-word", "a-${PARLEY_TEST_KEY}-b")
    for expected in ("a-from-a-file-b", "a-set-b"):
        vllm = parse(text, "f").backends["vllm"]
        assert isinstance(vllm, OpenAIBackend)
        assert expected == vllm.api_key
        monkeypatch.setenv("PARLEY_TEST_KEY", "set")


def test_a_file_may_be_named_in_a_value(tmp_path: Path) -> None:
    """`${file:PATH}` is the content of a file, whose state at that time is kept; a relative path is an error."""
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    config = parse(GOOD.replace("secret-word", f"a-${{file:{secret}}}-b"), "f")
    vllm = config.backends["vllm"]
    assert isinstance(vllm, OpenAIBackend)
    assert "a-from-a-file-b" == vllm.api_key
    status = secret.stat()
    assert {str(secret): (status.st_mtime_ns, status.st_ino, status.st_size)} == config.files
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace("secret-word", "${file:secret}"), "f")
    assert "backends.vllm.api_key: the file secret must be an absolute path" in str(caught.value)


def test_an_unreadable_file_of_a_value_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the path of the value, the file, its variable and the reason."""
    monkeypatch.setenv("PARLEY_TEST_KEY_FILE", str(tmp_path / "missing"))
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace("secret-word", "${PARLEY_TEST_KEY}"), "f")
    reason = f"{tmp_path}/missing of PARLEY_TEST_KEY_FILE cannot be read (No such file or directory)"
    assert f"backends.vllm.api_key: {reason}; name a readable file" in str(caught.value)


def test_secrets_are_not_shown() -> None:
    """The text form of a configuration contains no API keys."""
    assert "secret-word" not in repr(parse(GOOD, "f"))


def test_anchors_and_merged_mappings_are_read() -> None:
    """Anchors, aliases and merged mappings are accepted, and a key of a merged mapping may be overridden."""
    text = GOOD.replace("id: one\n", "id: one\n    timeouts: &slow {total: 1h}\n").replace(
        "    timeouts: {connect: 500ms, first_token: 5s, stream_idle: 10m, total: 2h}\n", ""
    )
    text = text.replace("id: two\n", "id: two\n    timeouts: {<<: *slow, connect: 1s}\n")
    assert [3600.0, 3600.0] == [model.timeouts.total for model in parse(text, "f").models]


def test_sessions_have_a_short_and_a_long_form() -> None:
    """`sessions` is a mode, or an object with a mode and the ids."""
    for text, expected in (("on_request", ("on_request", "generated")), ("{ids: caller}", ("auto", "caller"))):
        policy = parse(GOOD.replace("sessions: off", f"sessions: {text}"), "f").models[1].sessions
        assert expected == (policy.mode, policy.ids)
