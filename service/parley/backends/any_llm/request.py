"""Converts a call to the arguments of any-llm-sdk, and rejects fields that its packages would silently drop.

Packages for OpenAI's API send messages unchanged. Other packages translate them and drop unknown fields; such fields
are rejected here. Unknown fields of assistant messages are accepted: `extra_content` holds data that a vendor expects
in later requests, and fields of other vendors have no meaning for it.
"""

import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from parley.backends.capabilities import unsupported
from parley.backends.extra_body.policy import EVERYTHING, ExtraBodyPolicy
from parley.backends.json_fidelity import FIELDS, json_object
from parley.backends.openai import request as openai_request
from parley.core.messages.extra_fields import dump_bytes
from parley.core.messages.typed_fields import json_fields
from parley.core.ports import HOPS, UpstreamCall
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

_TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls")
_KEPT_FIELDS = frozenset({"extra_content"})


def arguments(
    call: UpstreamCall, *, stream: bool, translates: bool, policy: ExtraBodyPolicy = EVERYTHING
) -> dict[str, Any]:
    """Returns the keyword arguments for the package.

    Vendor parameters stay in `extra_body`, which only affects the JSON body; as arguments they could redirect the call.

    Args:
        call: The call.
        stream: Whether the answer is streamed.
        translates: Whether the package translates the messages.
        policy: The vendor parameters that are passed on.

    Raises:
        InvalidRequest: If a field is invalid.
        UnsupportedParameter: If the package would drop a field.
    """
    # Python's json module supports integers of any size.
    body: dict[str, Any] = json.loads(dump_bytes(openai_request.body(call, stream=stream, policy=policy)))
    if call.parameters is not None:
        call.parameters.apply(body)
    if translates:
        _check(call.request)
        if body.get("tool_choice") == "none" and all(message["role"] != "tool" for message in body["messages"]):
            for name in _TOOL_FIELDS:
                body.pop(name, None)
    extra = {name: body.pop(name) for name in body.keys() - FIELDS}
    headers = {} if translates else {"extra_headers": {HOPS: str(call.hops)}}
    return body | ({"extra_body": extra} if extra else {}) | headers


def _check(request: CreateChatCompletionRequest) -> None:
    """Raises UnsupportedParameter for a field that a translating package would drop."""
    for path in _unknown(request, ""):
        raise unsupported(f"`{path}`", request.model, path)
    if request.tool_choice.string_value != "none":
        for index, tool in enumerate(request.tools):
            if tool.type != "function":
                raise unsupported(f"A tool of the type `{tool.type}`", request.model, f"tools[{index}].type")


def _unknown(message: Any, path: str) -> Iterator[str]:
    """Yields the paths of unknown fields, except those of assistant messages."""
    if getattr(message, "extra_json", ""):
        known = {field.name for field in json_fields(message.DESCRIPTOR)}
        extra = json_object(message.extra_json, f"{path}extra_json")
        yield from (f"{path}{key}" for key in sorted(extra.keys() - known - _KEPT_FIELDS))
    for field, value in message.ListFields():
        if field.message_type is None or not field.message_type.full_name.startswith("parley."):
            continue
        if not field.is_repeated:
            yield from _unknown(value, f"{path}{field.name}.")
            continue
        for index, item in enumerate(value):
            if not (isinstance(item, Message) and getattr(item, "role", "") == "assistant"):
                yield from _unknown(item, f"{path}{field.name}[{index}].")
