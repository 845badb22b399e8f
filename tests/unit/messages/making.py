"""Messages for tests of sessions."""

from google.protobuf.json_format import ParseDict

from parley.v1.message_pb2 import Message


def message(role: str, content: object = None, **more: object) -> Message:
    """Makes a message from its JSON."""
    fields = {"role": role, **more}
    if content is not None:
        fields["content"] = content
    return ParseDict(fields, Message())


def call(name: str = "f", arguments: str = "{}", call_id: str = "c") -> dict[str, object]:
    """Makes a tool call, as JSON."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM, DEVELOPER = message("system", "s"), message("developer", "d")
USER, ANSWER = message("user", "u"), message("assistant", "a")
RESULT = message("tool", "r", tool_call_id="c")
