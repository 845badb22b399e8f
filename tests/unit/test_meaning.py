"""Whether two messages mean the same, however a client has rewritten them."""

import pytest
from google.protobuf.json_format import ParseDict

from parley.core.meaning import fingerprint, is_empty, same, same_json
from parley.v1.message_pb2 import Message


def _message(role: str, content: object = None, **more: object) -> Message:
    fields = {"role": role, **more}
    if content is not None:
        fields["content"] = content
    return ParseDict(fields, Message())


def _call(name: str = "f", arguments: str = "{}", call_id: str = "c") -> dict[str, object]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _call_with(arguments: str) -> Message:
    return _message("assistant", tool_calls=[_call(arguments=arguments)])


def _function(arguments: str) -> dict[str, object]:
    return {"name": "f", "arguments": arguments}


def _texts(*texts: str) -> list[dict[str, object]]:
    return [{"type": "text", "text": text} for text in texts]


def _image(url: str, detail: str | None = None) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url, "detail": detail}}


class TestSame:
    """Whether two messages say the same."""

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (_message("user", "Hi"), _message("user", [{"type": "text", "text": "Hi"}])),
            (_message("assistant", "", tool_calls=[_call()]), _message("assistant", tool_calls=[_call()])),
            (_message("assistant", None, tool_calls=[_call()]), _message("assistant", [], tool_calls=[_call()])),
            (_message("assistant", "a", refusal=""), _message("assistant", "a")),
            (_message("assistant", "a", reasoning_content="Hmm"), _message("assistant", "a")),
            (_message("assistant", "a", annotations=[{"type": "x"}]), _message("assistant", "a")),
            (
                _message("assistant", tool_calls=[{"id": "c", "function": {"name": "f", "arguments": "{}"}}]),
                _message("assistant", tool_calls=[_call()]),
            ),
            (_message("assistant", tool_calls=[_call(arguments='{"a": 1}')]), _call_with('{"a":1}')),
            (_message("assistant", " Hello.\n"), _message("assistant", "Hello.")),
            (_message("user", "Hi"), _message("user", "Hi", name="ada")),
            (_message("tool", "r", tool_call_id="c"), _message("tool", "r", tool_call_id="c", name="f")),
            (_message("user", _texts("a", "b")), _message("user", "ab")),
            (_message("assistant", _texts("a", "b")), _message("assistant", "a\nb")),
            (_message("assistant", _texts("a", "b")), _message("assistant", _texts("a", "b", ""))),
            (_message("assistant", _texts("Hello ", "you")), _message("assistant", "Hello you")),
            (_message("user", [{"type": "input_text", "text": "Hi"}]), _message("user", "Hi")),
            (
                _message("user", [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]),
                _message("user", [{"type": "text", "text": "Hi"}]),
            ),
            (
                _message("assistant", [{"type": "thinking", "thinking": "Hmm"}, *_texts("a")]),
                _message("assistant", "a"),
            ),
            (_message("assistant", [{"type": "refusal", "refusal": "No"}]), _message("assistant", refusal="No")),
            (_message("assistant", refusal="No"), _message("assistant", "")),
            (_message("user", [*_texts("See"), _image("u")]), _message("user", [*_texts(" See"), _image("u", "auto")])),
            (
                _message("user", [{"type": "image_url", "image_url": "u"}]),
                _message("user", [_image("u")]),
            ),
            (
                _message("user", [{"type": "file", "file": {"file_id": "f"}, "cache_control": {}, "x": None}]),
                _message("user", [{"type": "file", "file": {"file_id": "f"}}]),
            ),
            (
                _message("assistant", tool_calls=[_call("f", call_id="1"), _call("g", call_id="2")]),
                _message("assistant", tool_calls=[_call("g", call_id="2"), _call("f", call_id="1")]),
            ),
            (_message("assistant", tool_calls=[_call(call_id="")]), _message("assistant", tool_calls=[_call()])),
            (_message("assistant", function_call={"name": "f"}), _message("assistant", function_call=_function("{ }"))),
            (_message("assistant", audio={"id": "a"}), _message("assistant", "")),
            (_message("assistant", "<think>\nHmm\n</think>\n\nHello."), _message("assistant", "Hello.")),
            (_message("tool", '{"a": 1}', tool_call_id="c"), _message("tool", '{"a":1}', tool_call_id="c")),
        ],
    )
    def test_other_writing_same_message(self, one: Message, other: Message) -> None:
        """However a client has written down what it once received."""
        assert same(one, other)
        assert same(other, one)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (_message("user", "Hi"), _message("user", "Ho")),
            (_message("user", "Hi"), _message("assistant", "Hi")),
            (_message("user", "Hi", name="bob"), _message("user", "Hi", name="ada")),
            (_message("user", '{"a": 1}'), _message("user", '{"a":1}')),
            (_message("user", "a b"), _message("user", "ab")),
            (_message("user", "<think>Hmm</think>Hello."), _message("user", "Hello.")),
            (_message("assistant", "Hello. <think>Hmm</think>"), _message("assistant", "Hello.")),
            (_message("user", [*_texts("See"), _image("u")]), _message("user", "See")),
            (
                _message("user", [{"type": "file", "file": {"file_id": "f"}}]),
                _message("user", [{"type": "file", "file": {"file_id": "g"}}]),
            ),
            (
                _message(
                    "assistant", tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]
                ),
                _message(
                    "assistant", tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "f", "input": "y"}}]
                ),
            ),
            (_message("tool", "r", tool_call_id="c"), _message("tool", "r", tool_call_id="d")),
            (_message("assistant", tool_calls=[_call("f")]), _message("assistant", tool_calls=[_call("g")])),
            (_message("assistant", tool_calls=[_call()]), _message("assistant", tool_calls=[_call()] * 2)),
            (
                _message("assistant", tool_calls=[_call(call_id="c")]),
                _message("assistant", tool_calls=[_call(call_id="d")]),
            ),
            (
                _message("assistant", function_call={"name": "f", "arguments": "1"}),
                _message("assistant", function_call={"name": "f", "arguments": "2"}),
            ),
            (_message("user", [{"type": "text", "text": "a"}] * 2), _message("user", [{"type": "text", "text": "a"}])),
            (
                _message("user", [{"type": "image_url", "image_url": {"url": "a"}}]),
                _message("user", [{"type": "image_url", "image_url": {"url": "b"}}]),
            ),
            (_message("assistant", audio={"id": "a"}), _message("assistant", audio={"id": "b"})),
            (_message("assistant", refusal="No"), _message("assistant", refusal="Never")),
        ],
    )
    def test_other_messages(self, one: Message, other: Message) -> None:
        """A difference in who speaks, what is said or what is called is a difference."""
        assert not same(one, other)


class TestSameJson:
    """Tool arguments, which clients parse and serialize anew."""

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ('{"a": 1, "b": [true, null]}', '{"b":[true,null],"a":1}'),
            ('{"a": "\\u00fc/"}', '{"a":"ü\\/"}'),
            ('{"a": 1.0}', '{"a":1}'),
            ('{"a": 1e3}', '{"a":1000}'),
            ('{"2": 0, "1": 0}', '{"1":0,"2":0}'),
            ("", "{}"),
            (" ", "{ }"),
            ("not JSON", "not JSON "),
            ('{"id": 18446744073709551615}', '{"id":18446744073709551615}'),
            ('{"id": 18446744073709551615}', '{"id":18446744073709552000}'),
            ('{"id": 9007199254740993}', '{"id":9007199254740992}'),
            ('{"id": 1000000000000000000001}', '{"id":1e+21}'),
            ('{"a": "line\nbreak"}', '{"a":"line\\nbreak"}'),
        ],
    )
    def test_same_value(self, one: str, other: str) -> None:
        """Spaces, the order of keys, escapes and the form of numbers change nothing; nor does JavaScript's rounding."""
        assert same_json(one, other)
        assert same_json(other, one)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ('{"a": 1}', '{"a": 2}'),
            ('{"a": 1}', '{"a": true}'),
            ('{"a": 1}', '{"a": "1"}'),
            ('{"a": null}', "{}"),
            ('{"a": 0}', '{"a": null}'),
            ("[1, 2]", "[2, 1]"),
            ("[1]", "[1, 1]"),
            ('{"id": 18446744073709551615}', '{"id": 18446744073709551614}'),
            ('{"id": 18446744073709551615}', '{"id": 18446744073709551616}'),
            ('{"a": 1', '{"a":1'),
            ("[" * 100_000, "[" * 99_999),
            ("1" + "0" * 400, "1e5"),
        ],
    )
    def test_another_value(self, one: str, other: str) -> None:
        """Another value, type or order of items is another value; what is not JSON must be equal."""
        assert not same_json(one, other)


class TestFingerprint:
    """Keys by which a repetition is found."""

    def test_of_rewritten_messages(self) -> None:
        """Rewriting a text or its calls' arguments keeps the key."""
        assert fingerprint(_message("user", " Hi")) == fingerprint(_message("user", _texts("Hi"), name="ada"))
        assert fingerprint(_call_with("{}")) == fingerprint(_call_with("[]"))

    @pytest.mark.parametrize(
        "message", [_message("assistant"), _message("assistant", ""), _message("user", [_image("u")])]
    )
    def test_of_nothing(self, message: Message) -> None:
        """What has neither text nor tool calls proves nothing."""
        assert fingerprint(message) is None


class TestIsEmpty:
    """Answers that have nothing to keep."""

    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            (_message("assistant"), True),
            (_message("assistant", " ", reasoning_content="Hmm"), True),
            (_message("assistant", [{"type": "thinking", "thinking": "Hmm"}]), True),
            (_message("assistant", "a"), False),
            (_message("assistant", refusal="No"), False),
            (_message("assistant", [{"type": "refusal", "refusal": "No"}]), False),
            (_message("assistant", tool_calls=[_call()]), False),
            (_message("assistant", function_call={"name": "f"}), False),
            (_message("assistant", audio={"id": "a"}), False),
            (_message("user", ""), False),
        ],
    )
    def test_kinds(self, message: Message, expected: bool) -> None:
        """Reasoning alone is nothing; a text, a call, a refusal or audio is something."""
        assert expected is is_empty(message)
