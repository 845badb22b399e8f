"""Equivalence of messages that clients rewrite."""

import pytest

from parley.core.messages.equivalence import fingerprint, is_empty, is_equivalent, same_json
from parley.v1.message_pb2 import Message
from tests.unit.messages.making import call, message


def _call_with(arguments: str) -> Message:
    return message("assistant", tool_calls=[call(arguments=arguments)])


def _function(arguments: str) -> dict[str, object]:
    return {"name": "f", "arguments": arguments}


def _texts(*texts: str) -> list[dict[str, object]]:
    return [{"type": "text", "text": text} for text in texts]


def _image(url: str, detail: str | None = None) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url, "detail": detail}}


class TestSame:
    """Equivalence of two messages."""

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (message("user", "Hi"), message("user", [{"type": "text", "text": "Hi"}])),
            (message("assistant", "", tool_calls=[call()]), message("assistant", tool_calls=[call()])),
            (message("assistant", None, tool_calls=[call()]), message("assistant", [], tool_calls=[call()])),
            (message("assistant", "a", refusal=""), message("assistant", "a")),
            (message("assistant", "a", reasoning_content="Hmm"), message("assistant", "a")),
            (message("assistant", "a", annotations=[{"type": "x"}]), message("assistant", "a")),
            (
                message("assistant", tool_calls=[{"id": "c", "function": {"name": "f", "arguments": "{}"}}]),
                message("assistant", tool_calls=[call()]),
            ),
            (message("assistant", tool_calls=[call(arguments='{"a": 1}')]), _call_with('{"a":1}')),
            (message("assistant", " Hello.\n"), message("assistant", "Hello.")),
            (message("user", "Hi"), message("user", "Hi", name="ada")),
            (message("tool", "r", tool_call_id="c"), message("tool", "r", tool_call_id="c", name="f")),
            (message("user", _texts("a", "b")), message("user", "ab")),
            (message("assistant", _texts("a", "b")), message("assistant", "a\nb")),
            (message("assistant", _texts("a", "b")), message("assistant", _texts("a", "b", ""))),
            (message("assistant", _texts("Hello ", "you")), message("assistant", "Hello you")),
            (message("user", [{"type": "input_text", "text": "Hi"}]), message("user", "Hi")),
            (
                message("user", [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]),
                message("user", [{"type": "text", "text": "Hi"}]),
            ),
            (
                message("assistant", [{"type": "thinking", "thinking": "Hmm"}, *_texts("a")]),
                message("assistant", "a"),
            ),
            (message("assistant", [{"type": "refusal", "refusal": "No"}]), message("assistant", refusal="No")),
            (message("assistant", refusal="No"), message("assistant", "")),
            (message("user", [*_texts("See"), _image("u")]), message("user", [*_texts(" See"), _image("u", "auto")])),
            (
                message("user", [{"type": "image_url", "image_url": "u"}]),
                message("user", [_image("u")]),
            ),
            (
                message("user", [{"type": "file", "file": {"file_id": "f"}, "cache_control": {}, "x": None}]),
                message("user", [{"type": "file", "file": {"file_id": "f"}}]),
            ),
            (
                message("assistant", tool_calls=[call("f", call_id="1"), call("g", call_id="2")]),
                message("assistant", tool_calls=[call("g", call_id="2"), call("f", call_id="1")]),
            ),
            (message("assistant", tool_calls=[call(call_id="")]), message("assistant", tool_calls=[call()])),
            (message("assistant", function_call={"name": "f"}), message("assistant", function_call=_function("{ }"))),
            (message("assistant", audio={"id": "a"}), message("assistant", "")),
            (message("assistant", "<think>\nHmm\n</think>\n\nHello."), message("assistant", "Hello.")),
            (message("tool", '{"a": 1}', tool_call_id="c"), message("tool", '{"a":1}', tool_call_id="c")),
        ],
    )
    def test_rewritten_messages_are_equivalent(self, one: Message, other: Message) -> None:
        """A message is equivalent to every form that a client rewrites it to."""
        assert is_equivalent(one, other)
        assert is_equivalent(other, one)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (message("user", "Hi"), message("user", "Ho")),
            (message("user", "Hi"), message("assistant", "Hi")),
            (message("user", "Hi", name="bob"), message("user", "Hi", name="ada")),
            (message("user", '{"a": 1}'), message("user", '{"a":1}')),
            (message("user", "a b"), message("user", "ab")),
            (message("user", "<think>Hmm</think>Hello."), message("user", "Hello.")),
            (message("assistant", "Hello. <think>Hmm</think>"), message("assistant", "Hello.")),
            (message("user", [*_texts("See"), _image("u")]), message("user", "See")),
            (
                message("user", [{"type": "file", "file": {"file_id": "f"}}]),
                message("user", [{"type": "file", "file": {"file_id": "g"}}]),
            ),
            (
                message("assistant", tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]),
                message("assistant", tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "f", "input": "y"}}]),
            ),
            (message("tool", "r", tool_call_id="c"), message("tool", "r", tool_call_id="d")),
            (message("assistant", tool_calls=[call("f")]), message("assistant", tool_calls=[call("g")])),
            (message("assistant", tool_calls=[call()]), message("assistant", tool_calls=[call()] * 2)),
            (
                message("assistant", tool_calls=[call(call_id="c")]),
                message("assistant", tool_calls=[call(call_id="d")]),
            ),
            (
                message("assistant", function_call={"name": "f", "arguments": "1"}),
                message("assistant", function_call={"name": "f", "arguments": "2"}),
            ),
            (message("user", [{"type": "text", "text": "a"}] * 2), message("user", [{"type": "text", "text": "a"}])),
            (
                message("user", [{"type": "image_url", "image_url": {"url": "a"}}]),
                message("user", [{"type": "image_url", "image_url": {"url": "b"}}]),
            ),
            (message("assistant", audio={"id": "a"}), message("assistant", audio={"id": "b"})),
            (message("assistant", refusal="No"), message("assistant", refusal="Never")),
        ],
    )
    def test_different_messages_are_not_equivalent(self, one: Message, other: Message) -> None:
        """Messages that differ in role, content or calls are not equivalent."""
        assert not is_equivalent(one, other)


class TestSameJson:
    """Tool arguments, which clients parse and serialize again."""

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
        """White space, order of keys, escapes, number formats and the rounding of JavaScript do not matter."""
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
        """Values, types and the order of items matter; texts that are not JSON must be equal."""
        assert not same_json(one, other)


class TestFingerprint:
    """Keys that find repeated messages."""

    def test_of_rewritten_messages(self) -> None:
        """Rewriting a text or the arguments of calls does not change the key."""
        assert fingerprint(message("user", " Hi")) == fingerprint(message("user", _texts("Hi"), name="ada"))
        assert fingerprint(_call_with("{}")) == fingerprint(_call_with("[]"))

    @pytest.mark.parametrize(
        "message", [message("assistant"), message("assistant", ""), message("user", [_image("u")])]
    )
    def test_of_empty_messages(self, message: Message) -> None:
        """A message with neither text nor tool calls has no key."""
        assert fingerprint(message) is None


class TestIsEmpty:
    """Answers without content that a client keeps."""

    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            (message("assistant"), True),
            (message("assistant", " ", reasoning_content="Hmm"), True),
            (message("assistant", [{"type": "thinking", "thinking": "Hmm"}]), True),
            (message("assistant", "a"), False),
            (message("assistant", refusal="No"), False),
            (message("assistant", [{"type": "refusal", "refusal": "No"}]), False),
            (message("assistant", tool_calls=[call()]), False),
            (message("assistant", function_call={"name": "f"}), False),
            (message("assistant", audio={"id": "a"}), False),
            (message("user", ""), False),
        ],
    )
    def test_kinds(self, message: Message, expected: bool) -> None:
        """Reasoning alone is no content; a text, a call, a refusal or audio is."""
        assert expected is is_empty(message)
