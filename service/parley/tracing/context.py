"""W3C Trace Context: the ids of a trace, and the headers that carry them (www.w3.org/TR/trace-context)."""

import random
import re
from collections.abc import Mapping
from typing import NamedTuple

# The system's source of randomness: ids of several workers must not collide.
_random = random.SystemRandom()
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MAX_STATE = 512  # characters that every implementation must pass on


class Parent(NamedTuple):
    """The trace context of a caller.

    Attributes:
        trace_id: The id of the trace.
        span_id: The id of the caller's span.
        is_sampled: Whether the caller samples the trace.
        state: The value of `tracestate`; empty for none.
    """

    trace_id: int
    span_id: int
    is_sampled: bool
    state: str


def parent(metadata: Mapping[str, str]) -> Parent | None:
    """Returns the trace context of the caller; None if there is none or it is malformed."""
    found = _PARENT.fullmatch(metadata.get("traceparent", ""))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    state = metadata.get("tracestate", "")
    is_usable = len(state) <= _MAX_STATE and state.isascii() and state.isprintable()
    return Parent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & 1), state if is_usable else "")


def traceparent(trace_id: int, span_id: int, *, is_sampled: bool) -> str:
    """Returns the value of `traceparent`."""
    return f"00-{trace_id:032x}-{span_id:016x}-{is_sampled:02x}"


def new_trace_id() -> int:
    """Returns a random id of a trace."""
    return _random.getrandbits(128) or 1


def new_span_id() -> int:
    """Returns a random id of a span."""
    return _random.getrandbits(64) or 1
