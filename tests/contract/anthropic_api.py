"""Messages of Anthropic's Messages API, as documented, for scripts of `tests.upstream`."""

import json
from typing import Any

from tests.upstream import Events, Step

USAGE = {"input_tokens": 9, "output_tokens": 3}


def message(*blocks: dict[str, Any], stop_reason: str = "end_turn", **more: Any) -> dict[str, Any]:
    """Creates a complete response with these content blocks; `more` overrides its fields."""
    return {
        "id": "msg_scripted",
        "type": "message",
        "role": "assistant",
        "model": "claude-scripted-1",
        "content": list(blocks),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": USAGE,
    } | more


def text_block(text: str, **more: Any) -> dict[str, Any]:
    """Creates a text block; `more` adds fields."""
    return {"type": "text", "text": text, **more}


def event(kind: str, **fields: Any) -> str:
    """Creates a server-sent event with its type as name and in the data."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


def start(**usage: int) -> str:
    """Creates the first event of a stream, with the usage of the prompt."""
    started = message(stop_reason="", usage={"input_tokens": 9, "output_tokens": 1} | usage)
    return event("message_start", message=started | {"stop_reason": None})


def block_start(index: int = 0, **block: Any) -> str:
    """Creates the start of a content block, by default of an empty text."""
    return event("content_block_start", index=index, content_block=block or {"type": "text", "text": ""})


def delta(kind: str = "text_delta", index: int = 0, **fields: Any) -> str:
    """Creates a delta of a content block: `delta(text="Hel")`."""
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def block_stop(index: int = 0) -> str:
    """Creates the end of a content block."""
    return event("content_block_stop", index=index)


def stopped(reason: str = "end_turn", **usage: int) -> list[Step]:
    """Creates the end of a stream: stop reason, usage and `message_stop`."""
    why = {"stop_reason": reason, "stop_sequence": None}
    return [event("message_delta", delta=why, usage={"output_tokens": 3} | usage), event("message_stop")]


def begins() -> list[Step]:
    """Returns the events before the first text."""
    return [start(), block_start(), event("ping")]


def ends() -> list[Step]:
    """Returns the events after the last text."""
    return [block_stop(), *stopped()]


def error(kind: str, text: str) -> dict[str, Any]:
    """Creates an error body, which is also the data of an `error` event."""
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_scripted"}


def streamed(*blocks: dict[str, Any]) -> Events:
    """Creates the stream of an answer with these blocks, split into deltas where possible."""
    steps: list[Any] = [start()]
    for index, block in enumerate(blocks):
        match block["type"]:
            case "thinking":
                steps.append(block_start(index, type="thinking", thinking="", signature=""))
                steps += [delta("thinking_delta", index, thinking=letter) for letter in block["thinking"]]
                steps.append(delta("signature_delta", index, signature=block["signature"]))
            case "text":
                steps += [block_start(index), *(delta("text_delta", index, text=letter) for letter in block["text"])]
                steps += [delta("citations_delta", index, citation=found) for found in block.get("citations", ())]
            case "tool_use" | "server_tool_use":
                steps.append(block_start(index, **block | {"input": {}}))
                text = json.dumps(block["input"])
                steps += [delta("input_json_delta", index, partial_json=piece) for piece in (text[:7], text[7:])]
            case _:
                steps.append(block_start(index, **block))
        steps.append(block_stop(index))
    return Events([*steps, *stopped("tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn")])
