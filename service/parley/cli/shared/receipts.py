"""Formats the receipt of a turn as text, a line for each guard and each attempt."""

from typing import Any

from parley.cli.shared.terminal import without_control_characters
from parley.config import target_name

_SECOND = 1000  # milliseconds
_PLACES = 9  # decimals of a cost


def lines(receipt: dict[str, Any]) -> list[str]:
    """Returns a line for each guard, and for each attempt, such as `openai/gpt-5-mini: 1.2 s, 134 tokens, 0.00021`.

    A kept answer has no attempts: its line is `from the cache`. An imported receipt may lack any field.
    """
    guards = [_guard(one) for one in receipt.get("guards", [])]
    attempts = [f"{_name(attempt)}: {', '.join(_facts(attempt))}" for attempt in receipt.get("attempts", [])]
    cached = ["from the cache"] if receipt.get("cache") == "hit" else []
    return [without_control_characters(line) for line in (*guards, *cached, *attempts)]


def _guard(result: dict[str, Any]) -> str:
    """Returns a line such as `guard pii, before the model: redacted, 12 ms`."""
    reason = f" ({result['reason']})" if "reason" in result else ""
    guard, phase, outcome = (result.get(name, "?") for name in ("guard", "phase", "outcome"))
    return f"guard {guard}, {phase} the model: {outcome}{reason}, {result.get('duration_ms', 0)} ms"


def _name(attempt: dict[str, Any]) -> str:
    """Returns `backend/model`, with the kind of the attempt unless it is the first."""
    name = target_name(attempt.get("backend", "?"), attempt.get("target_model", ""))
    kind = attempt.get("kind", "first")
    return name if kind == "first" else f"{name} ({kind})"


def _facts(attempt: dict[str, Any]) -> list[str]:
    facts = [_end(attempt)]
    if "usage" in attempt:
        about = "about " if attempt.get("estimated") else ""
        facts.append(f"{about}{attempt['usage'].get('total_tokens', 0)} tokens")
    if "cost" in attempt:
        facts.append(money(attempt["cost"]))
    return facts


def _end(attempt: dict[str, Any]) -> str:
    """Returns `1.2 s`, or `failed after 40 ms (UPSTREAM_UNAVAILABLE)`."""
    took = attempt.get("duration_ms", 0)
    time = f"{took} ms" if took < _SECOND else f"{took / _SECOND:.1f} s"
    outcome = attempt.get("outcome", "cancelled")
    if outcome == "completed":
        return time
    reason = f" ({attempt['reason']})" if "reason" in attempt else ""
    return f"{outcome} after {time}{reason}"


def money(amount: float) -> str:
    """Formats an amount without an exponent or trailing zeros: `0.00021`."""
    integer, _, decimals = f"{amount:.{_PLACES}f}".partition(".")
    return f"{integer}.{decimals.rstrip('0').ljust(2, '0')}"
