"""Log lines for a terminal: a call is one line that fits it, the most important fields first."""

import os
from collections.abc import MutableMapping
from typing import Any

from parley.logs.characters import mark_controls

_COLUMNS = 120  # where the width is unknown
_SHORT_ID = 8  # characters of a request id, enough to compare by eye
_COLOURS = {"warning": "33", "error": "31", "critical": "31"}


def render(event: MutableMapping[str, Any]) -> bytes:
    """Renders an event."""
    level, exception = event.pop("level", "info"), event.pop("exception", None)
    time = str(event.pop("timestamp", ""))[11:19]
    name = event.pop("event")
    head = f"{time} {level.upper():7} "
    room = _columns() - len(head)
    line = _printable(_call(event, room) if name == "call" else f"{name}  {_fields(event)}".rstrip())
    if name == "call" and len(line) > room:
        line = line[: room - 1] + "…"
    lines = [_coloured(head, level) + line, *([mark_controls(exception)] if exception else [])]
    return "\n".join(lines).encode(errors="replace")


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or _COLUMNS
    except OSError:
        return _COLUMNS


def _call(event: MutableMapping[str, Any], room: int) -> str:
    """Formats a call: method, time and status; then the model and tokens, or the reason of the failure.

    Without room for all, the account, the target and the request id of an answer are left out, in this order.
    """
    start = [str(event.get("method", "")), f"{event.get('ms', 0):.0f} ms", str(event.get("status", ""))]
    request_id = str(event.get("request_id", ""))[:_SHORT_ID]
    if "reason" in event:
        return _joined([*start, request_id, *_failure(event)])
    short = event
    forms = [_joined([*start, request_id, *_answer(short)])]
    for name in ("account", "target"):
        short = {key: value for key, value in short.items() if key != name}
        forms.append(_joined([*start, request_id, *_answer(short)]))
    forms.append(_joined([*start, *_answer(short)]))
    return next((form for form in forms if len(form) <= room), forms[-1])


def _joined(parts: list[str]) -> str:
    return "  ".join(part for part in parts if part)


def _failure(event: MutableMapping[str, Any]) -> list[str]:
    cause = event.get("cause") or next((one["cause"] for one in event.get("tried", ()) if one.get("cause")), None)
    return [f"{event['reason']}: {event.get('error', '')}", f"({cause})" if cause else ""]


def _answer(event: MutableMapping[str, Any]) -> list[str]:
    model, target = str(event.get("model", "")), event.get("target")
    tokens = f"{event['prompt_tokens']}+{event['completion_tokens']} tokens" if "completion_tokens" in event else ""
    attempts = f"{event['attempts']} attempts" if "attempts" in event else ""
    return [f"{model} → {target}" if target else model, tokens, attempts, str(event.get("account", ""))]


def _fields(event: MutableMapping[str, Any]) -> str:
    return "  ".join(f"{key}={value}" for key, value in event.items() if value is not None)


def _printable(text: str) -> str:
    """Replaces control characters: log lines contain text of callers and models, which could control the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _coloured(text: str, level: str) -> str:
    colour = _COLOURS.get(level)
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text
