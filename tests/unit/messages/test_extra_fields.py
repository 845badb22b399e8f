"""Reading, merging and writing of the JSON text of callers."""

import pytest

from parley.core.messages import extra_fields


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", True),
        (' {"a": 18446744073709551617} ', True),
        ('{"a": 1}, "b": {}', False),
        ("[]", False),
        ("{", False),
        ('{"a": NaN}', False),
        ('{"a": "' + "x" * 20_000 + '"}', True),
        ('{"a": "' + "x" * 20_000, False),
    ],
)
def test_a_schema_is_the_text_of_one_json_object(text: str, expected: bool) -> None:
    """The first check of a text and every later one have the same result."""
    assert [expected, expected] == [extra_fields.is_schema(text), extra_fields.is_schema(text)]


def test_a_schema_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second check of the same text, as by the next attempt, does not read it again."""
    text = '{"type": "object", "title": "parsed once"}'
    assert extra_fields.is_schema(text)
    monkeypatch.setattr(extra_fields, "read_object", lambda _: None)
    assert extra_fields.is_schema(text)
