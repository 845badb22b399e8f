"""The guard in the package: finds regular expressions and the shapes of secrets, and redacts or refuses.

RE2 takes time in proportion to the text, whatever the expressions of the operator. Python's `re` may take years.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import re2

from parley.config import Guard
from parley.core.offload import offload
from parley.guard.v1.guard_pb2 import Allow, CheckRequest, CheckResponse, Redact, Refuse, Unit
from parley.guards.secret_shapes import SHAPES

_GROUP = b"secret"


class _Pattern(NamedTuple):
    """An expression, and its name as a reason. `is_beginning`: it finds the beginning of what may go on."""

    name: str
    expression: Any
    is_beginning: bool = False


class _Found(NamedTuple):
    """A part of a text in bytes of UTF-8."""

    start: int
    end: int
    pattern: _Pattern


class PatternGuard:
    """A guard with expressions.

    Args:
        config: The expressions, and what to do with what they find.
    """

    def __init__(self, config: Guard) -> None:
        self._patterns = [
            _Pattern(f"pattern_{number}", _compiled(text)) for number, text in enumerate(config.patterns, 1)
        ]
        for shape in SHAPES if config.secrets else ():
            self._patterns.append(_Pattern(shape.name, _compiled(shape.pattern)))
            if shape.beginning:
                self._patterns.append(_Pattern(shape.name, _compiled(shape.beginning), is_beginning=True))
        self._refuses = config.action == "refuse"
        self._replacement = config.replacement

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Returns the decision; see the port."""
        return await offload(self._decide, request)

    async def close(self) -> None:
        """Does nothing."""

    def _decide(self, request: CheckRequest) -> CheckResponse:
        redact = Redact()
        for number, unit in enumerate(request.units):
            if unit.history:
                continue
            for found in self._find(unit, is_last=request.last):
                if self._refuses and not found.pattern.is_beginning:
                    return _refusal(found.pattern.name)
                redact.spans.add(unit=number, start=found.start, end=found.end, replacement=self._replacement)
        return CheckResponse(redact=redact) if redact.spans else CheckResponse(allow=Allow())

    def _find(self, unit: Unit, *, is_last: bool) -> Iterator[_Found]:
        """Yields what the expressions find, joined where it overlaps, in code points."""
        data = unit.text.encode()
        matches = (
            _Found(*_bounds(match), pattern)
            for pattern in self._patterns
            if not (pattern.is_beginning and is_last)
            for match in pattern.expression.finditer(data)
        )
        found = sorted(matches, key=lambda one: (one.start, one.end))  # expressions have no order
        joined = [one for one in _joined(found) if one.start < one.end]
        return iter(joined) if len(data) == len(unit.text) else _in_code_points(data, joined)


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern.encode(), options)


def _bounds(match: Any) -> tuple[int, int]:
    """Returns the bounds of the group `secret` of a match, or of all of it."""
    group = match.re.groupindex.get(_GROUP, 0)
    start, end = match.span(group)
    return (start, end) if start >= 0 else match.span()


def _joined(found: Sequence[_Found]) -> Iterator[_Found]:
    """Yields what was found, sorted by its start, with overlapping parts as one."""
    current: _Found | None = None
    for one in found:
        if current is None or one.start >= current.end:
            if current is not None:
                yield current
            current = one
        elif one.end > current.end:
            current = current._replace(end=one.end)
    if current is not None:
        yield current


def _in_code_points(data: bytes, found: Sequence[_Found]) -> Iterator[_Found]:
    """Yields the parts with positions in code points instead of bytes."""
    borders = [border for one in found for border in (one.start, one.end)]
    lengths = (len(data[start:end].decode()) for start, end in zip([0, *borders], borders, strict=False))
    points = iter(accumulate(lengths))
    for one in found:
        yield one._replace(start=next(points), end=next(points))


def _refusal(name: str) -> CheckResponse:
    what = name.replace("_", " ")
    return CheckResponse(refuse=Refuse(reason=name, message=f"The text contains what this service refuses: {what}"))
