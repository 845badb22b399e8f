"""Text of others for a terminal: what a model or a caller wrote must not move the cursor or change the colours."""

import re
from typing import Any

# Control characters, but for tab and line feed; U+0080 to U+009F among them, and those that turn the writing round.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Returns the text without control characters."""
    return _CONTROLS.sub("", text)


def said(message: dict[str, Any]) -> str:
    """Returns what a message says, as a person reads it: text, `[image_url]` for other parts, calls of tools."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content] if content else []
    lines = [_part(part) for part in parts]
    lines += [message[name] for name in ("refusal",) if message.get(name)]
    calls = [call.get("function") or call.get("custom") or {} for call in message.get("tool_calls", [])]
    calls += [message["function_call"]] if "function_call" in message else []
    lines += [f"→ {call.get('name', '')}({call.get('arguments', call.get('input', ''))})" for call in calls]
    return plain("\n".join(lines))


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "part") if isinstance(part, dict) else "part"
    return str(part["text"]) if kind == "text" and "text" in part else f"[{kind}]"
