"""The decisions of guards, validated, and the redaction of texts."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from parley.core.ports import GuardError
from parley.guard.v1.guard_pb2 import CheckRequest, CheckResponse, Redact

MAX_REPLACEMENT = 1024  # code points
_REASON = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Span(NamedTuple):
    """A part of a text, in code points, and what replaces it."""

    start: int
    end: int
    replacement: str


class Refusal(NamedTuple):
    """A refusal: the reason for programs, and the message for the caller, which may be empty."""

    reason: str
    message: str


class Redaction(NamedTuple):
    """The spans to replace, by the position of their unit, sorted by their start."""

    spans: Mapping[int, Sequence[Span]]


Decision: TypeAlias = Refusal | Redaction | None
"""What a guard has decided; None if all texts pass."""


def decision(request: CheckRequest, response: CheckResponse) -> Decision:
    """Returns the decision of a guard. Raises GuardError if guard.proto does not allow the response."""
    kind = response.WhichOneof("decision")
    if kind == "allow":
        return None
    if kind == "refuse":
        reason = response.refuse.reason
        return Refusal(reason if _REASON.fullmatch(reason) else "unspecified", response.refuse.message)
    if kind == "redact":
        return Redaction(_spans(request, response.redact))
    raise _invalid("it has no decision")


def redacted(text: str, spans: Sequence[Span]) -> str:
    """Returns a text with its sorted spans replaced."""
    parts: list[str] = []
    end = 0
    for span in spans:
        parts += (text[end : span.start], span.replacement)
        end = span.end
    parts.append(text[end:])
    return "".join(parts)


def _spans(request: CheckRequest, redact: Redact) -> Mapping[int, Sequence[Span]]:
    if not redact.spans:
        raise _invalid("it redacts no spans")
    found: dict[int, list[Span]] = {}
    for span in redact.spans:
        if len(span.replacement) > MAX_REPLACEMENT:
            raise _invalid(f"a replacement has {len(span.replacement):,} characters; {MAX_REPLACEMENT:,} are allowed")
        found.setdefault(span.unit, []).append(Span(span.start, span.end, span.replacement))
    for number, spans in found.items():
        spans.sort()
        _check(request, number, spans)
    return found


def _check(request: CheckRequest, number: int, spans: Sequence[Span]) -> None:
    """Raises GuardError if the spans are not parts of the unit."""
    if number >= len(request.units):
        raise _invalid(f"a span names the unit {number} of {len(request.units)}")
    unit = request.units[number]
    if unit.history:
        raise _invalid(f"a span names the unit {number}, which is of the history")
    end = 0
    for span in spans:
        if not end <= span.start < span.end:
            raise _invalid(f"the span {span.start}-{span.end} is empty, reversed, or overlaps another one")
        end = span.end
    if end > len(unit.text):
        raise _invalid(f"a span ends at {end}, and the text at {len(unit.text)}")


def _invalid(cause: str) -> GuardError:
    return GuardError("invalid_response", cause)
