"""The exchange of the states of targets with the replicas on other machines, through the store.

One worker of a machine exchanges for all, twice a second; no call waits for it. A breaker that another machine has
opened stays closed here until a call of this machine fails too: see `breaker`. The machine that has set the time of the
next probe makes it, and the others only if it does not.
"""

import hashlib
import math
import random
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress

from parley.config import BackendConfig, LlamaCppBackend
from parley.core.background import PeriodicTask
from parley.core.errors import StoreUnavailable
from parley.core.ports.targets import TargetState, TargetStore
from parley.core.routing.breaker import Clock
from parley.core.routing.probe_schedule import MAX_HOLD, REPLICA_DELAY, ProbeTimes, SharedState

_INTERVAL_SECONDS = 0.5
_TOLERANCE = 0.1  # seconds, in addition to the time of the exchange, by which returned times are late


def common_name(target: str, backend: BackendConfig) -> str | None:
    """Returns the name of a target for all machines; None if each machine has a server of its own.

    During a change of the configuration, machines may use different servers under the same name.
    """
    if isinstance(backend, LlamaCppBackend):
        return None
    place = [getattr(backend, field, None) for field in ("kind", "base_url", "target", "provider")]
    return f"{target} {hashlib.sha256(repr(place).encode()).hexdigest()[:16]}"


class ReplicatedTargets:
    """Exchanges the states of all targets periodically.

    Args:
        store: The store that the replicas share.
        states: The states that the workers of this machine share, by the name of the target for all machines.
        is_leader: Returns whether this worker exchanges for the machine.
        clock: The clock of the states in seconds.
    """

    def __init__(
        self,
        store: TargetStore,
        states: Mapping[str, SharedState],
        is_leader: Callable[[], bool],
        clock: Clock = time.monotonic,
    ) -> None:
        self._store = store
        self._states = states
        self._is_leader = is_leader
        self._clock = clock
        self._machine = uuid.uuid4().hex
        self._exchanged = {name: state.read() for name, state in states.items()}
        self._versions: dict[str, float] = {}
        self._task = PeriodicTask("the exchange of targets' states", self.exchange, _INTERVAL_SECONDS, 0.1)

    def start(self) -> None:
        """Starts the exchange."""
        self._task.start()

    async def stop(self) -> None:
        """Stops the exchange."""
        await self._task.stop()

    async def exchange(self) -> None:
        """Exchanges the states once. Does nothing while the store is unavailable, which its monitor reports."""
        if not self._is_leader():
            return
        began = self._clock()
        local = {name: state.read() for name, state in self._states.items()}
        changed = [_to_store(name, times, began) for name, times in local.items() if times != self._exchanged[name]]
        with suppress(StoreUnavailable):
            found = await self._store.exchange_targets(self._machine, changed)
            self._exchanged.update((one.name, local[one.name]) for one in changed)
            for state in found:
                self._apply(state, self._clock() - began + _TOLERANCE)

    def _apply(self, found: TargetState, tolerance: float) -> None:
        """Applies a state that has changed since the last exchange to the state of this machine."""
        shared = self._states.get(found.name)
        if shared is None or self._versions.get(found.name) == found.version:
            return
        self._versions[found.name] = found.version
        now, delay = self._clock(), 0.0 if found.is_own else random.uniform(*REPLICA_DELAY)  # noqa: S311 - no secret

        def change(old: ProbeTimes) -> ProbeTimes:
            return merge(old, found, now, tolerance, delay)

        if (before := shared.read()) == change(before):
            return
        previous = shared.update(change)
        if previous == self._exchanged[found.name]:  # otherwise a call has changed it, and the next exchange stores it
            self._exchanged[found.name] = change(previous)


def merge(times: ProbeTimes, found: TargetState, now: float, tolerance: float, delay: float) -> ProbeTimes:
    """Returns the times of this machine after another one has stored a state.

    Args:
        times: The times of this machine.
        found: The stored state.
        now: The time.
        tolerance: Seconds by which a stored time must be later than one of this machine to be another one.
        delay: Seconds by which probes of this machine are later than those of the one that has stored the state.
    """
    if found.held_for is not None and now + found.held_for > times.held_until + tolerance:
        times = times.held(now, now + min(found.held_for, MAX_HOLD), limited=found.rate_limited)
    opened_at, recovered_at = _time(now, found.opened_ago), _time(now, found.recovered_ago)
    if recovered_at > max(times.recovered_at + tolerance, times.opened_at):
        times = times.recovered(recovered_at)
    if found.next_probe_in is None or opened_at <= max(recovered_at, times.recovered_at):
        return times
    next_probe = now + found.next_probe_in + delay
    if not times.is_open(now) or next_probe > times.next_probe + tolerance:
        times = times._replace(next_probe=next_probe, interval=found.interval)
    return times.opened(now, opened_at)


def _time(now: float, ago: float | None) -> float:
    return -math.inf if ago is None else now - ago


def _ago(now: float, at: float) -> float | None:
    return now - at if -math.inf < at <= now else None


def _to_store(name: str, times: ProbeTimes, now: float) -> TargetState:
    held_for, is_open = times.held_until - now, times.is_open(now)
    return TargetState(
        name,
        _ago(now, times.opened_at) if is_open else None,
        _ago(now, times.recovered_at),
        times.next_probe - now if is_open else None,
        times.interval,
        held_for if 0 < held_for <= MAX_HOLD else None,
        bool(times.rate_limited),
    )
