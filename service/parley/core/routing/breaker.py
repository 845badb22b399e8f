"""The circuit breaker of one target: keeps calls away from it while it fails.

    closed ── 5 failures in a row, or half of 20 within 30 s ──→ open, for 10 s
    open ── the time is over ──→ half open: one call is let through, the probe
    half open ── the probe succeeds ──→ closed;  the probe fails ──→ open, for longer, up to 15 s

Each worker counts by itself, but they share the pause: one of them probes, and closes the breakers of all.

A call enters with a permit, and says with it how it ended. What a permit says that was given before the last change of
state is not heard: it tells of another time.

Apart from these states, a target may be held: it has asked not to be called before some time (`Retry-After`).
"""

import time
from collections import deque
from collections.abc import Callable

from parley.core.errors import ParleyError, UpstreamRateLimited, UpstreamTimeout
from parley.core.routing.probe_schedule import Memory, Pause

Clock = Callable[[], float]
"""Tells the time in seconds, from any beginning."""

UNHEARD = -1
"""A permit whose results are ignored."""

IN_A_ROW = 5
WINDOW = 20
WINDOW_SECONDS = 30.0


class Breaker:
    """One target's. Times are those of `clock`, which all who share the pause have in common.

    `only_suspected` tells that it is open because calls wait longer than usual, and for no other reason: a call that
    has nowhere else to go may be made all the same.
    """

    def __init__(self, clock: Clock = time.monotonic, pause: Pause | None = None) -> None:
        self._clock = clock
        self._pause = pause or Pause(Memory())
        self._permit = 0  # of the present state
        self._probing = False
        self._opened: float | None = None  # None: closed
        self._cause: type[ParleyError] | None = None  # the kind of the latest failure
        self._close()

    @property
    def is_closed(self) -> bool:
        """Tells whether every call is let through."""
        if self._opened is not None and self._pause.ended_since(self._opened):
            self._close()
        return self._opened is None

    def admits(self) -> bool:
        """Tells whether a call would be let through now."""
        now = self._clock()
        if self._pause.held(now)[0]:
            return False
        return self.is_closed or (not self._probing and now >= self._pause.due())

    def retry_in(self) -> float:
        """Returns in how many seconds a call may be let through; 0 for now."""
        now = self._clock()
        held, _ = self._pause.held(now)
        return held if self.is_closed else max(held, self._pause.due() - now)

    def cause(self) -> type[ParleyError] | None:
        """Returns the kind of failure that keeps calls away; None where none does, or it is not known."""
        if self._pause.held(self._clock())[1]:
            return UpstreamRateLimited
        return None if self.is_closed else self._cause

    def hold(self, seconds: float, cause: type[ParleyError]) -> None:
        """Keeps all calls away for so many seconds, because the target asked for it with this kind of failure."""
        self._pause.hold(self._clock(), seconds, limited=issubclass(cause, UpstreamRateLimited))

    def enter(self) -> int | None:
        """Lets a call through and returns its permit; None where it must go elsewhere."""
        if self._pause.held(self._clock())[0]:
            return None
        if self.is_closed:
            return self._permit
        if self._probing or not self._pause.take(self._clock()):
            return None
        self._probing = True
        self._permit += 1
        return self._permit

    def began(self, permit: int) -> int:
        """Notes that an answer has begun: a probe has succeeded then. Returns the permit to say with how it ends."""
        if self._probing and permit == self._permit:
            self._end_pause()
            return self._permit
        return permit

    def succeeded(self, permit: int) -> None:
        """Notes that the target answered, be it that the request is wrong."""
        if permit != self._permit:
            return
        if self._probing:
            self._end_pause()
        else:
            self._in_a_row = self._suspicions = 0
            self._note(failed=False)

    def failed(self, permit: int, cause: type[ParleyError] | None = None) -> None:
        """Notes a failure that counts against the target; its kind is kept as the cause while the breaker is open."""
        if permit != self._permit:
            return
        self._cause = cause
        self.only_suspected = False
        if self._probing:
            self._pause.failed(self._clock())
            self._open()
            return
        self._in_a_row += 1
        self._note(failed=True)
        if self._in_a_row >= IN_A_ROW or self._half_failed():
            self._pause.begin(self._clock())
            self._open()

    def suspect(self, permit: int) -> None:
        """Notes that a call waits longer than usual, which counts as a failure until its first token comes."""
        if permit != self._permit:
            return
        self._suspicions += 1
        in_a_row = self._in_a_row + 1
        before = self.only_suspected if self._probing else self._suspicions >= in_a_row
        self.failed(permit, UpstreamTimeout)
        self.only_suspected = before and self._opened is not None

    def clear(self, permit: int) -> None:
        """Notes that the first token of a suspected call has come: the suspicion was wrong, or may be over."""
        if permit == self._permit:
            self._in_a_row = self._suspicions = 0
            last = max((place for place, (_, failed) in enumerate(self._latest) if failed), default=None)
            if last is not None:
                self._latest[last] = (self._latest[last][0], False)
        elif self.only_suspected:
            self.try_now()

    def left(self, permit: int) -> None:
        """Notes that a call ended without a word about the target, for example because its caller left."""
        if self._probing and permit == self._permit:
            self._pause.again(self._clock())
            self._open()

    def try_now(self) -> None:
        """Lets a probe be made at once: something else has found the target well."""
        if not self.is_closed and not self._probing:
            self._pause.skip(self._clock())

    def _note(self, *, failed: bool) -> None:
        self._latest.append((self._clock(), failed))

    def _half_failed(self) -> bool:
        full = len(self._latest) == WINDOW and self._latest[0][0] >= self._clock() - WINDOW_SECONDS
        return full and 2 * sum(failed for _, failed in self._latest) >= WINDOW

    def _open(self) -> None:
        self._opened = self._clock()
        self._probing = False
        self._permit += 1

    def _end_pause(self) -> None:
        self._pause.end(self._clock())
        self._close()

    def _close(self) -> None:
        self._opened = None
        self._cause = None
        self._probing = False
        self._permit += 1
        self._in_a_row = self._suspicions = 0
        self.only_suspected = False
        self._latest: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
