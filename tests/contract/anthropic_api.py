"""What Anthropic's Messages API says, as its reference documents it, for scripts of `tests.upstream`."""

import json
from typing import Any

from tests.upstream import Step

USAGE = {"input_tokens": 9, "output_tokens": 3}


def message(*blocks: dict[str, Any], stop_reason: str = "end_turn", **more: Any) -> dict[str, Any]:
    """Returns a whole answer with these content blocks; `more` replaces its fields."""
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


def text_block(text: str) -> dict[str, Any]:
    """Returns a block of text."""
    return {"type": "text", "text": text}


def event(kind: str, **fields: Any) -> str:
    """Returns one server-sent event, as Anthropic writes them: its name, and the name again in the data."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


def start(**usage: int) -> str:
    """Returns the first event of a stream, with what the prompt cost."""
    started = message(stop_reason="", usage={"input_tokens": 9, "output_tokens": 1} | usage)
    return event("message_start", message=started | {"stop_reason": None})


def block_start(index: int = 0, **block: Any) -> str:
    """Returns the beginning of a content block, by default of an empty text."""
    return event("content_block_start", index=index, content_block=block or {"type": "text", "text": ""})


def delta(kind: str = "text_delta", index: int = 0, **fields: Any) -> str:
    """Returns a piece of a content block: `delta(text="Hel")`."""
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def block_stop(index: int = 0) -> str:
    """Returns the end of a content block."""
    return event("content_block_stop", index=index)


def stopped(reason: str = "end_turn", **usage: int) -> list[Step]:
    """Returns the end of a stream: why it ended and what it cost, and that it is whole."""
    why = {"stop_reason": reason, "stop_sequence": None}
    return [event("message_delta", delta=why, usage={"output_tokens": 3} | usage), event("message_stop")]


def begins() -> list[Step]:
    """Returns what stands before the first piece of text."""
    return [start(), block_start(), event("ping")]


def ends() -> list[Step]:
    """Returns what follows the last piece of text."""
    return [block_stop(), *stopped()]


def error(kind: str, words: str) -> dict[str, Any]:
    """Returns the body of an error, which is also the data of an `error` event."""
    return {"type": "error", "error": {"type": kind, "message": words}, "request_id": "req_scripted"}
