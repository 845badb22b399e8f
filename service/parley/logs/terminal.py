"""Log lines for a terminal: a call is one line of at most 120 columns, the most important fields first."""

from collections.abc import MutableMapping
from typing import Any

from parley.logs.characters import mark_controls

_COLUMNS = 120
_SHORT_ID = 8  # characters of a request id, enough to compare by eye
_COLOURS = {"warning": "33", "error": "31", "critical": "31"}


def render(event: MutableMapping[str, Any]) -> bytes:
    """Renders an event."""
    level, exception = event.pop("level", "info"), event.pop("exception", None)
    time = str(event.pop("timestamp", ""))[11:19]
    name = event.pop("event")
    text = _call(event) if name == "call" else f"{name}  {_fields(event)}".rstrip()
    head = f"{time} {level.upper():7} "
    line = _printable(text)
    if name == "call" and len(head) + len(line) > _COLUMNS:
        line = line[: _COLUMNS - len(head) - 1] + "…"
    lines = [_coloured(head, level) + line, *([mark_controls(exception)] if exception else [])]
    return "\n".join(lines).encode(errors="replace")


def _call(event: MutableMapping[str, Any]) -> str:
    """Formats a call: method, time and status; then the model and tokens, or the reason of the failure."""
    parts = [str(event.get("method", "")), f"{event.get('ms', 0):.0f} ms", str(event.get("status", ""))]
    parts.append(str(event.get("request_id", ""))[:_SHORT_ID])
    parts += _failure(event) if "reason" in event else _answer(event)
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
