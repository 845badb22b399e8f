"""A model's instructions and the conversation's own system messages."""

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from parley.core.messages.instructions import with_instructions
from parley.v1.message_pb2 import Message

USER = {"role": "user", "content": "hi"}
CACHED = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}


def system(content: Any, role: str = "system", **more: Any) -> dict[str, Any]:
    """Returns a system message."""
    return {"role": role, "content": content, **more}


def sent(*messages: dict[str, Any], instructions: str = "Be brief.", join: bool = True) -> list[dict[str, Any]]:
    """Returns the conversation as a backend gets it."""
    asked = [ParseDict(message, Message()) for message in messages]
    made = with_instructions(instructions, asked, join=join)
    return [MessageToDict(message, preserving_proto_field_name=True) for message in made]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([USER], "Be brief."),
        ([system("a"), USER], "Be brief.\n\na"),
        ([system("a", "developer"), USER], "Be brief.\n\na"),
        ([system("a"), system("b", "developer"), USER, system("c")], "Be brief.\n\na\n\nb\n\nc"),
        ([system(""), USER], "Be brief."),
        (
            [system([CACHED]), system("b"), USER],
            [{"type": "text", "text": "Be brief."}, CACHED, {"type": "text", "text": "b"}],
        ),
    ],
    ids=["none", "one", "a developer's", "several", "an empty one", "parts"],
)
def test_one_system_message_goes_first(messages: list[dict[str, Any]], expected: Any) -> None:
    """Chat templates refuse a second system message, and one that is not the first."""
    assert [system(expected), USER] == sent(*messages)


def test_what_else_a_system_message_has_is_kept() -> None:
    """A name and unknown fields stay; a single message's unknown fields exactly as they came."""
    exact = '{"cache_control": {"ttl": 18446744073709551616}}'
    [joined, _] = sent(system("a", name="boss", extra_json=exact), USER)
    assert ("boss", exact) == (joined["name"], joined["extra_json"])
    [joined, _] = sent(system("a", extra_json='{"x":1,"y":1}'), system("b", extra_json='{"y":2}'), USER)
    assert '{"x":1,"y":2}' == joined["extra_json"]


def test_separate() -> None:
    """Where the model says so, the instructions are a message of their own, and the caller's stay where they are."""
    messages = [system("a"), USER, system("b")]
    assert [system("Be brief."), *messages] == sent(*messages, join=False)


def test_without_instructions_nothing_is_changed() -> None:
    """System messages that the caller wrote are joined only because Parley adds one."""
    messages = [system("a"), USER, system("b", "developer")]
    assert messages == sent(*messages, instructions="")
