"""From a call to the arguments of any-llm-sdk, and what its packages would lose of it.

Packages that speak OpenAI's API send a message as it is. All others translate it, and what they do not know is gone
without a word: that is refused by name here. Fields of earlier answers may stay: the packages keep in `extra_content`
what their vendor wants back, and those of another vendor mean nothing to it.
"""

import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from parley.backends.capabilities import unsupported
from parley.backends.json_fidelity import FIELDS, json_object
from parley.backends.openai import request as openai_request
from parley.core.messages.extra_fields import dump_bytes
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

_OF_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
_KEPT = frozenset({"extra_content"})


def arguments(call: UpstreamCall, *, stream: bool, translates: bool) -> dict[str, Any]:
    """Returns what the package is asked; `translates` tells whether it changes the messages. Raises InvalidRequest.

    A backend's own parameters stay in `extra_body`, which becomes part of the JSON and nothing else: as arguments they
    could say where the call goes.
    """
    # Python's own reader has integers of any size.
    body: dict[str, Any] = json.loads(dump_bytes(openai_request.body(call, stream=stream)))
    if translates:
        _check(call.request)
        if body.get("tool_choice") == "none" and all(message["role"] != "tool" for message in body["messages"]):
            for name in _OF_TOOLS:
                body.pop(name, None)
    extra = {name: body.pop(name) for name in body.keys() - FIELDS}
    return body | ({"extra_body": extra} if extra else {})


def _check(request: CreateChatCompletionRequest) -> None:
    """Raises UnsupportedParameter for what a package that translates would lose."""
    for path in _unknown(request, ""):
        raise unsupported(f"`{path}`", request.model, path)
    if request.tool_choice.string_value != "none":
        for index, tool in enumerate(request.tools):
            if tool.type != "function":
                raise unsupported(f"A tool of the type `{tool.type}`", request.model, f"tools[{index}].type")


def _unknown(message: Any, path: str) -> Iterator[str]:
    """Yields the paths of unknown fields, but those of assistant messages."""
    if getattr(message, "extra_json", ""):
        typed = message.DESCRIPTOR.fields_by_name.keys()
        extra = json_object(message.extra_json, f"{path}extra_json")
        yield from (f"{path}{key}" for key in sorted(extra.keys() - typed - _KEPT))
    for field, value in message.ListFields():
        if field.message_type is None or not field.message_type.full_name.startswith("parley."):
            continue
        if not field.is_repeated:
            yield from _unknown(value, f"{path}{field.name}.")
            continue
        for index, item in enumerate(value):
            if not (isinstance(item, Message) and getattr(item, "role", "") == "assistant"):
                yield from _unknown(item, f"{path}{field.name}[{index}].")
