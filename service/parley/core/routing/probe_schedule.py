"""When a target that fails is tried again. The workers of a machine share it, so that one of them probes for all."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

FIRST = 10.0
LONGEST = 15.0
"""Seconds between two probes: they double with each probe that fails, from the first pause to the longest."""


LONGEST_HOLD = 300.0
"""Seconds for which a target's own `Retry-After` keeps calls away from it, at the most."""


_LOOK_EVERY = 0.02  # seconds: the hold of another worker is seen that late, and most calls read no file


class Numbers(NamedTuple):
    """When the next probe is due, how long the pause to it is, and when a pause was last ended: seconds of a clock.

    `held` is the time before which the target has asked not to be called, `limited` is 1 where its rate limit is why.
    """

    due: float = 0.0
    length: float = FIRST
    ended: float = float("-inf")
    held: float = float("-inf")
    limited: float = 0.0


class Cell(Protocol):
    """Where the numbers of one target are."""

    def read(self) -> Numbers:
        """Returns them."""
        ...

    def change(self, change: Callable[[Numbers], Numbers]) -> Numbers:
        """Changes them, while nobody else does; returns what they were before."""
        ...


class Memory:
    """The cell of a worker that shares with nobody."""

    def __init__(self) -> None:
        self._numbers = Numbers()

    def read(self) -> Numbers:
        """Returns the numbers."""
        return self._numbers

    def change(self, change: Callable[[Numbers], Numbers]) -> Numbers:
        """Changes them; returns what they were before."""
        before = self._numbers
        self._numbers = change(before)
        return before


class Pause:
    """One target's pause. `now` is everywhere the time of a clock that all who share the cell have in common."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._seen = Numbers()  # what `held` has read
        self._seen_at = float("-inf")

    def begin(self, now: float) -> None:
        """Begins the first pause, unless one is running; a time too far away is of the clock before a restart."""
        self._cell.change(lambda old: old if now < old.due <= now + LONGEST else self._of(now, FIRST, old))

    def due(self) -> float:
        """Returns when the next probe may be made."""
        return self._cell.read().due

    def take(self, now: float) -> bool:
        """Takes the probe, so that nobody else makes one within the pause; False where it is not due."""
        before = self._cell.change(lambda old: old if now < old.due else old._replace(due=now + old.length))
        return now >= before.due

    def failed(self, now: float) -> None:
        """Begins a pause twice as long: the probe has failed."""
        self._cell.change(lambda old: self._of(now, min(2 * old.length, LONGEST), old))

    def again(self, now: float) -> None:
        """Begins the same pause again: the probe has said nothing."""
        self._cell.change(lambda old: self._of(now, old.length, old))

    def skip(self, now: float) -> None:
        """Lets a probe be made at once."""
        self._cell.change(lambda old: old._replace(due=now))

    def end(self, now: float) -> None:
        """Ends the pause for all who share it: the target answers."""
        self._cell.change(lambda old: old._replace(due=0.0, length=FIRST, ended=now))

    def ended_since(self, then: float) -> bool:
        """Tells whether a pause was ended since then."""
        return self._cell.read().ended > then

    def hold(self, now: float, seconds: float, *, limited: bool) -> None:
        """Keeps all calls away for so many seconds, at most LONGEST_HOLD; a longer hold that is running stays."""
        self._seen_at = float("-inf")
        until = now + min(seconds, LONGEST_HOLD)
        self._cell.change(
            lambda old: old if until < old.held <= now + LONGEST_HOLD else old._replace(held=until, limited=limited)
        )

    def held(self, now: float) -> tuple[float, bool]:
        """Returns for how many seconds calls are kept away, 0 for none, and whether a rate limit is why."""
        if not 0 <= now - self._seen_at < _LOOK_EVERY:
            self._seen, self._seen_at = self._cell.read(), now
        seconds = self._seen.held - now
        return (seconds, bool(self._seen.limited)) if 0 < seconds <= LONGEST_HOLD else (0.0, False)

    @staticmethod
    def _of(now: float, length: float, old: Numbers) -> Numbers:
        return old._replace(due=now + length, length=length)
