"""Rules of keys and accounts, and the secrets of keys."""

import hashlib

import pytest

from parley.config import STORAGE_LIMITS, UNLIMITED, Limits
from parley.config.loader import parse
from parley.core.administration import LimitChange, Rules
from parley.core.administration.rules import require_name
from parley.core.administration.secrets import digest, new_key_id, new_secret
from parley.core.errors import InvalidRequest


def test_the_format_of_secrets() -> None:
    """A secret is `sk-` and 32 random bytes, stored as its SHA-256; ids are short; both are unique."""
    secrets = {new_secret() for _ in range(100)}
    assert {("sk-", 3 + 43)} == {(secret[:3], len(secret)) for secret in secrets}
    assert {("key_", 16)} == {(one[:4], len(one)) for one in (new_key_id(), new_key_id())}
    assert 100 == len(secrets)
    assert hashlib.sha256(b"sk-x").digest() == digest("sk-x")


@pytest.mark.parametrize(
    "name", ["", " ", "x" * 129, "\x1b[31m", "a\x00", "a\nb", "\u202ea", "\u2028", "\ud800", "\x9b1m"]
)
def test_names_that_are_refused(name: str) -> None:
    """A name is not empty, not too long, and has no character that moves a cursor or reorders text."""
    with pytest.raises(InvalidRequest, match="`name` must"):
        require_name("name", name)


@pytest.mark.parametrize("name", ["ada", "x" * 128, "Zoë 👩 [bold] 公司", "https://login.example.com#ada"])
def test_names_that_are_accepted(name: str) -> None:
    """A name may have any printable characters; outer white space is removed."""
    assert name == require_name("name", f" {name} ")


_CONFIG = """
backends: {a: {kind: openai, base_url: "http://10.0.0.5/v1"}}
models:
  - {id: "a/*", targets: [{backend: a, model: "*"}]}
  - {id: one, targets: [{backend: a}], aliases: [{id: old}]}
"""


def test_the_models_that_a_key_may_list() -> None:
    """These are ids, aliases, names that a wildcard stands for, and ids with `*` that stand for some of these."""
    rules = Rules.of(parse(_CONFIG, "f"))
    listed = ["a/*", "a/x", "a/qwen/*", "o*", "*", "one", "old", "one"]
    assert tuple(listed[:-1]) == rules.require_models(listed)
    for unknown in ("b/x", "on", "b/*", "one/*", ""):
        with pytest.raises(InvalidRequest, match="no model has the id"):
            rules.require_models(["one", unknown])


class TestLimitChange:
    """Changes of limits."""

    def test_set_replace_and_remove(self) -> None:
        """A change sets and removes single limits, or replaces all."""
        before = Limits(requests_per_minute=5, tokens_per_minute=7)
        change = {"requests_per_minute": 6.0, "tokens_per_minute": None}
        assert Limits(requests_per_minute=6) == LimitChange(change).apply(before)
        assert Limits(tokens_per_day=5_000_000) == LimitChange({"tokens_per_day": "5M"}, replace=True).apply(before)
        assert UNLIMITED is LimitChange({}, replace=True).apply(before)

    @pytest.mark.parametrize(
        ("values", "text"),
        [
            ({"nope": 1}, '`limits` has no "nope"; the limits are: requests_per_minute, '),
            ({"requests_per_minute": 0}, "`limits.requests_per_minute`: "),
            ({"requests_per_minute": 1.5}, "`limits.requests_per_minute`: "),
            ({"tokens_per_day": "many"}, "`limits.tokens_per_day`: "),
        ],
    )
    def test_limits_that_are_refused(self, values: dict[str, float | str], text: str) -> None:
        """Unknown limits and values out of range are refused by name."""
        with pytest.raises(InvalidRequest) as caught:
            LimitChange(values).apply(UNLIMITED)
        assert caught.value.message.startswith(text)

    @pytest.mark.parametrize("name", STORAGE_LIMITS)
    def test_keys_have_no_storage(self, name: str) -> None:
        """Limits of what is stored belong to accounts."""
        assert 5 == getattr(LimitChange({name: 5}).apply(UNLIMITED), name)
        with pytest.raises(InvalidRequest, match=f'has no "{name}"'):
            LimitChange({name: 5}).apply(UNLIMITED, of_key=True)
