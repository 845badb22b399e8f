"""Converts a conversation to the messages of Anthropic's Messages API.

System messages are merged into the system prompt. Other messages become alternating `user` and `assistant` messages:
adjacent messages of one role are merged, so that one message holds all results of a round of tool calls. Reasoning of
earlier turns is sent only with its signature, which the API requires.

Unknown fields: `cache_control` moves to the last block of its message, `is_error` to the tool result. Others are
rejected, except in assistant messages, where they come from other vendors and are dropped. Source: Messages API
reference; messages, tool use, extended thinking, prompt caching.
"""

import re
from typing import Any, Literal

from parley.backends.anthropic import blocks as anthropic_blocks
from parley.backends.anthropic import parts as anthropic_parts
from parley.backends.anthropic.parts import Block, content_blocks
from parley.backends.capabilities import unsupported
from parley.backends.json_fidelity import exact, members
from parley.core.errors import UnsupportedParameter
from parley.core.messages import extra_fields
from parley.core.ports import UpstreamCall
from parley.v1.message_pb2 import Message, ToolCall

_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]")
_CACHE = "cache_control"
_KNOWN_FIELDS = frozenset({_CACHE, "content"})  # `content` is the exact text of that field
_OF_RESULTS = _KNOWN_FIELDS | {"is_error"}
_OF_CALLS = frozenset({_CACHE, "caller"})
_NONE: frozenset[str] = frozenset()


def conversation(call: UpstreamCall) -> tuple[list[Block], list[Block]]:
    """Converts a conversation.

    Returns:
        The blocks of the system prompt, and the messages.

    Raises:
        InvalidRequest: If a message is invalid.
        UnsupportedParameter: If the API has no equivalent of a field.
    """
    writer = _Writer(call.request.model)
    for index, message in enumerate(call.request.messages):
        writer.add(message, f"messages[{index}]")
    if not call.has_prefill and writer.messages and writer.messages[-1]["role"] == "assistant":
        raise _continuation_error(call.request.model, len(call.request.messages) - 1)
    return writer.system, writer.messages


def _continuation_error(model: str, index: int) -> UnsupportedParameter:
    text = (
        f'The model "{model}" continues an assistant message at the end, and cannot answer it;'
        " set `continue_final_message`, or end with a message of the user"
    )
    return UnsupportedParameter(text, param=f"messages[{index}].role")


class _Writer:
    """Converts one conversation, message by message. `model` is the caller's name for the model, for errors."""

    def __init__(self, model: str) -> None:
        self.system: list[Block] = []
        self.messages: list[Block] = []
        self._model = model

    def add(self, message: Message, path: str) -> None:
        """Adds a message; `path` is its path in the request, for errors."""
        self._reject_unsupported(message, path)
        if message.role == "assistant":
            self._append("assistant", self._assistant(message, path))
            return
        extra = self._extra(message, path)
        if message.role in ("system", "developer"):
            parts = content_blocks(message.content, path, self._model, anthropic_parts.SYSTEM_PARTS, _NONE)
            self.system += _cached(parts, extra)
        elif message.role == "tool":
            self._append("user", [self._result(message, path) | _named(extra, _OF_RESULTS)])
        else:
            parts = content_blocks(message.content, path, self._model, anthropic_parts.USER_PARTS)
            self._append("user", _cached(parts, extra))

    def _append(self, role: str, blocks: list[Block]) -> None:
        if not blocks:
            return
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"] += blocks
        else:
            self.messages.append({"role": role, "content": blocks})

    def _reject_unsupported(self, message: Message, path: str) -> None:
        """Raises UnsupportedParameter for fields without an equivalent; the name of a tool result is redundant."""
        fields: tuple[Literal["name", "audio", "function_call"], ...] = ("name", "audio", "function_call")
        for name in fields:
            if message.HasField(name) and not (name == "name" and message.role == "tool"):
                raise unsupported(f"`{path}.{name}`", self._model, f"{path}.{name}")
        if message.role == "function":
            raise unsupported("A message of the role `function`", self._model, f"{path}.role")

    def _extra(self, message: Message, path: str) -> dict[str, Any]:
        """Returns a message's unknown fields. Raises UnsupportedParameter for one that the API does not have."""
        extra = _members(message.extra_json, path)
        for key in sorted(extra.keys() - (_OF_RESULTS if message.role == "tool" else _KNOWN_FIELDS)):
            raise unsupported(f"`{path}.{key}`", self._model, f"{path}.{key}")
        return extra

    def _assistant(self, message: Message, path: str) -> list[Block]:
        extra = _members(message.extra_json, path)
        fields = extra_fields.loads(message.extra_json) if extra else {}
        received = anthropic_blocks.received(message, fields)
        if received is not None:
            return received
        blocks = content_blocks(message.content, path, self._model, anthropic_parts.ASSISTANT_PARTS, _NONE)
        if message.refusal.strip():
            blocks.append({"type": "text", "text": message.refusal})
        blocks += [self._call(call, f"{path}.tool_calls[{index}]") for index, call in enumerate(message.tool_calls)]
        return anthropic_blocks.thinking(fields) + _cached(blocks, extra)

    def _call(self, call: ToolCall, path: str) -> Block:
        if call.type == "custom":
            raise unsupported("A tool call of the type `custom`", self._model, f"{path}.type")
        text = call.function.arguments
        arguments = exact(text, f"{path}.function.arguments") if text.strip() else {}
        block = {"type": "tool_use", "id": _call_id(call.id), "name": call.function.name, "input": arguments}
        return block | _named(_members(call.extra_json, path), _OF_CALLS)

    def _result(self, message: Message, path: str) -> Block:
        result = {"type": "tool_result", "tool_use_id": _call_id(message.tool_call_id)}
        blocks = content_blocks(message.content, path, self._model, anthropic_parts.USER_PARTS)
        return result | {"content": blocks} if blocks else result


def _members(extra_json: str, path: str) -> dict[str, Any]:
    return dict(members(extra_json, f"{path}.extra_json")) if extra_json else {}


def _named(extra: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in extra.items() if key in names and key != "content"}


def _cached(blocks: list[Block], extra: dict[str, Any]) -> list[Block]:
    """Copies `cache_control` of a message to its last block, unless the block has one."""
    if blocks and _CACHE in extra:
        blocks[-1].setdefault(_CACHE, extra[_CACHE])
    return blocks


def _call_id(name: str) -> str:
    """Replaces the characters of a tool call id that the API rejects; ids of other vendors may have some."""
    return _NOT_IN_AN_ID.sub("_", name)
