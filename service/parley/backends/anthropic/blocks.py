"""Preserves content blocks of Anthropic's responses without an equivalent in OpenAI's format, to send them back later.

The API requires the signature of thinking blocks in a tool loop; they are kept in `thinking_blocks`, the field name
that LiteLLM uses. If the order of blocks matters (server tools, citations), all blocks are kept unchanged in
`content_blocks`. Source: Messages API reference; extended thinking, server tools, citations.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from parley.core.messages import extra_fields
from parley.v1.message_pb2 import Message

Block = dict[str, Any]

THINKING = frozenset({"thinking", "redacted_thinking"})
_ORDER = {"thinking": 0, "redacted_thinking": 0, "text": 1, "tool_use": 2}
CONTENT_BLOCKS = "content_blocks"
THINKING_BLOCKS = "thinking_blocks"


def unknown_fields(blocks: Sequence[Block]) -> dict[str, Any]:
    """Returns the unknown fields of a message that preserve these blocks."""
    thinking = [block for block in blocks if block["type"] in THINKING]
    fields: dict[str, Any] = {THINKING_BLOCKS: thinking} if thinking else {}
    return fields | all_blocks(blocks)


def all_blocks(blocks: Sequence[Block]) -> dict[str, Any]:
    """Returns the field with all blocks if the message's own fields lose their order or citations, else {}."""
    order = [_ORDER.get(block["type"], -1) for block in blocks]
    is_lossless = order == sorted(order) and -1 not in order and not any(block.get("citations") for block in blocks)
    return {} if is_lossless else {CONTENT_BLOCKS: list(blocks)}


# Delta type: field of the delta, and field of the block to which it is appended.
_FIELDS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "input_json_delta": ("partial_json", "input"),
    "citations_delta": ("citation", "citations"),
}


class Blocks:
    """Assembles the blocks of a streamed answer from their deltas."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._open: dict[int, tuple[Block, dict[str, list[Any]]]] = {}

    def begin(self, index: int, block: Mapping[str, Any]) -> None:
        """Begins a block. An index may recur: some servers number every block 0."""
        started = dict(block)
        self._blocks.append(started)
        self._open[index] = (started, {})

    def add(self, index: int, delta: Mapping[str, Any]) -> None:
        """Adds a delta to a block; a delta of an unknown type or block is ignored."""
        field, found = _FIELDS.get(delta["type"]), self._open.get(index)
        if field is not None and found is not None:
            found[1].setdefault(field[1], []).append(delta[field[0]])

    def close(self, index: int) -> list[Block]:
        """Ends a block; returns it in a list if it is a thinking block, else []."""
        found = self._open.pop(index, None)
        if found is None:
            return []
        block, parts = found
        for name, items in parts.items():
            block[name] = _joined(block.get(name), name, items)
        return [block] if block["type"] in THINKING else []

    def end(self) -> dict[str, Any]:
        """Ends all blocks; returns `all_blocks` of the complete answer."""
        for index in list(self._open):
            self.close(index)
        return all_blocks(self._blocks)


def _joined(start: Any, name: str, parts: list[Any]) -> Any:
    if name == "citations":
        return [*(start or ()), *parts]
    text = "".join(parts)
    if name != "input":
        return (start or "") + text
    try:
        return orjson.Fragment(text) if isinstance(orjson.loads(text), dict) else start
    except orjson.JSONDecodeError:  # truncated or empty
        return start


def received(message: Message, fields: dict[str, Any]) -> list[Block] | None:
    """Returns the original blocks of an assistant message; None if they were not kept or the message was modified."""
    blocks = _objects(fields.get(CONTENT_BLOCKS))
    texts = [block.get("text") for block in blocks if block.get("type") == "text"]
    calls = [block.get("id") for block in blocks if block.get("type") == "tool_use"]
    same_text = "".join(map(str, texts)) == message.content.string_value
    return blocks if blocks and same_text and calls == [call.id for call in message.tool_calls] else None


def thinking(fields: dict[str, Any]) -> list[Block]:
    """Returns the thinking blocks that can be sent back: those with a signature, and redacted ones."""
    return [block for block in _objects(fields.get(THINKING_BLOCKS)) if _is_signed(block)]


def remove_thinking(messages: Iterable[Message]) -> bool:
    """Removes the preserved blocks from a conversation in place; returns whether there were any."""
    found = False
    for message in messages:
        fields = extra_fields.loads(message.extra_json) if message.role == "assistant" and message.extra_json else {}
        others = {name: value for name, value in fields.items() if name not in (THINKING_BLOCKS, CONTENT_BLOCKS)}
        if len(others) < len(fields):
            found = True
            message.extra_json = extra_fields.dumps(others)
    return found


def _is_signed(block: Block) -> bool:
    kind = block.get("type")
    return (kind == "thinking" and bool(block.get("signature"))) or (kind == "redacted_thinking" and "data" in block)


def _objects(data: Any) -> list[Block]:
    return [block for block in data if isinstance(block, dict)] if isinstance(data, Iterable) else []
