"""Joining of a model's instructions with system messages."""

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
    parsed = [ParseDict(message, Message()) for message in messages]
    made = with_instructions(instructions, parsed, join=join)
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
def test_one_system_message_is_first(messages: list[dict[str, Any]], expected: Any) -> None:
    """Instructions and all system messages become one message, as templates reject a second or a later one."""
    assert [system(expected), USER] == sent(*messages)


def test_other_fields_of_a_system_message_are_kept() -> None:
    """A name and unknown fields are kept; those of a single message are not changed."""
    exact = '{"cache_control": {"ttl": 18446744073709551616}}'
    [joined, _] = sent(system("a", name="boss", extra_json=exact), USER)
    assert ("boss", exact) == (joined["name"], joined["extra_json"])
    [joined, _] = sent(system("a", extra_json='{"x":1,"y":1}'), system("b", extra_json='{"y":2}'), USER)
    assert '{"x":1,"y":2}' == joined["extra_json"]


def test_instructions_can_be_a_separate_message() -> None:
    """Without joining, the instructions are a separate message, and the caller's messages are not changed."""
    messages = [system("a"), USER, system("b")]
    assert [system("Be brief."), *messages] == sent(*messages, join=False)


def test_without_instructions_no_message_is_changed() -> None:
    """Without instructions the conversation is not changed, however many system messages it has."""
    messages = [system("a"), USER, system("b", "developer")]
    assert messages == sent(*messages, instructions="")
