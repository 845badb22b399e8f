"""The guard in the package: finds regular expressions and the shapes of secrets, and redacts or refuses.

RE2 takes time in proportion to the text, whatever the expressions of the operator. Python's `re` may take years.
"""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import re2

from parley.config import Guard
from parley.core.offload import in_thread
from parley.guard.v1.guard_pb2 import Allow, CheckRequest, CheckResponse, Redact, Refuse
from parley.guards.secret_shapes import SHAPES

_GROUP = b"secret"
_SEPARATOR = b"\n\0\n"
_BATCH_BYTES = 64 * 1024
_SLICE_SECONDS = 0.01  # of a check; then other calls have their turn
_MAX_INLINE_CHARACTERS = 16 * 1024  # checked on the event loop, within a millisecond
_MAX_FOUND = 20_000  # matches of one check
_MAX_SECONDS = 10.0  # of computing for one check: an expression may search all that follows at each of its matches


class _Pattern(NamedTuple):
    """An expression.

    Attributes:
        name: Its name as a reason.
        expression: The expression.
        is_shape: Whether it is a shape of secrets, which matches within several texts together if it matches one.
        is_beginning: Whether it finds the beginning of what may go on.
    """

    name: str
    expression: Any
    is_shape: bool = False
    is_beginning: bool = False


class _Found(NamedTuple):
    """A part of a text in bytes of UTF-8."""

    start: int
    end: int
    pattern: _Pattern


class PatternGuard:
    """A guard with expressions. A text that exceeds its limits is refused, also by a guard that is open on failure.

    Long texts are checked in slices in the thread of large calls, so that the checks of several calls take turns.

    Args:
        config: The expressions, and what to do with what they find.
    """

    is_remote = False

    def __init__(self, config: Guard) -> None:
        self._patterns = [
            _Pattern(f"pattern_{number}", _compiled(text)) for number, text in enumerate(config.patterns, 1)
        ]
        for shape in SHAPES if config.secrets else ():
            self._patterns.append(_Pattern(shape.name, _compiled(shape.pattern), is_shape=True))
            if shape.beginning:
                self._patterns.append(_Pattern(shape.name, _compiled(shape.beginning), is_beginning=True))
        self._replacement = config.replacement
        self._refuses = config.action == "refuse"

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Returns the decision; see the port."""
        patterns = [one for one in self._patterns if not (one.is_beginning and request.last)]
        scan = _Scan(request, patterns, self._replacement, refuses=self._refuses)
        if _is_short(request):
            scan.advance()
        while scan.response is None:
            await in_thread(scan.advance)
        return scan.response

    async def close(self) -> None:
        """Does nothing."""


class _Scan:
    """The check of one request, in slices.

    Attributes:
        response: The decision; None until it is known.
    """

    def __init__(self, request: CheckRequest, patterns: Sequence[_Pattern], replacement: str, *, refuses: bool) -> None:
        self.response: CheckResponse | None = None
        self._patterns = patterns
        self._replacement = replacement
        self._refuses = refuses
        self._seconds = 0.0
        self._found = 0
        self._steps = self._run(request)

    def advance(self) -> None:
        """Continues the check for a slice of time, or one step if that takes longer."""
        started, spent = time.thread_time(), 0.0
        try:
            while spent < _SLICE_SECONDS:
                next(self._steps)
                spent = time.thread_time() - started
        except StopIteration as end:
            self.response = end.value
            return
        self._seconds += spent
        if self._seconds > _MAX_SECONDS:
            self.response = _refused("too_costly", "The text takes too long to check; send a shorter one")

    def _run(self, request: CheckRequest) -> Generator[None, None, CheckResponse]:
        """Returns the decision; yields after each step."""
        redact = Redact()
        texts = ((number, unit.text.encode()) for number, unit in enumerate(request.units) if not unit.history)
        for batch in _batches(texts):
            patterns = yield from self._relevant([data for _, data in batch])
            for number, data in batch if patterns else ():
                found = yield from self._matches(data, patterns)
                if self._found > _MAX_FOUND:
                    return _refused(
                        "too_many", "The text has too much of what this service removes; send a shorter one"
                    )
                for one in _found_in(data, found):
                    if self._refuses and not one.pattern.is_beginning:
                        return _refusal(one.pattern.name)
                    redact.spans.add(unit=number, start=one.start, end=one.end, replacement=self._replacement)
        return CheckResponse(redact=redact) if redact.spans else CheckResponse(allow=Allow())

    def _relevant(self, texts: Sequence[bytes]) -> Generator[None, None, Sequence[_Pattern]]:
        """Returns the expressions that may match some of the texts; yields after each expression."""
        if len(texts) == 1:
            return self._patterns
        together, relevant = _SEPARATOR.join(texts), []
        for pattern in self._patterns:
            if not pattern.is_shape or pattern.expression.search(together):
                relevant.append(pattern)
            yield
        return relevant

    def _matches(self, data: bytes, patterns: Sequence[_Pattern]) -> Generator[None, None, list[_Found]]:
        """Returns what the expressions find; yields after each match and each expression."""
        found: list[_Found] = []
        for pattern in patterns:
            for match in pattern.expression.finditer(data):
                self._found += 1
                found.append(_Found(*_bounds(match), pattern))
                if self._found > _MAX_FOUND or (self._refuses and not pattern.is_beginning):
                    break
                yield
            yield
        return found


def _is_short(request: CheckRequest) -> bool:
    """Returns whether the texts of a request are checked on the event loop."""
    lengths = accumulate(len(unit.text) for unit in request.units)
    return all(length <= _MAX_INLINE_CHARACTERS for length in lengths)


def _batches(texts: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """Yields the texts in lists, which are together not much longer than a limit."""
    batch: list[tuple[int, bytes]] = []
    size = 0
    for number, data in texts:
        if batch and size + len(data) > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append((number, data))
        size += len(data) + len(_SEPARATOR)
    if batch:
        yield batch


def _found_in(data: bytes, matches: Iterable[_Found]) -> Iterator[_Found]:
    """Yields the matches, joined where they overlap, in code points."""
    found = sorted(matches, key=lambda one: (one.start, one.end))  # expressions have no order
    joined = [one for one in _joined(found) if one.start < one.end]
    return iter(joined) if data.isascii() else _in_code_points(data, joined)


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
    return _refused(name, f"The text contains what this service refuses: {what}")


def _refused(reason: str, message: str) -> CheckResponse:
    return CheckResponse(refuse=Refuse(reason=reason, message=message))
