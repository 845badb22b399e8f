"""The interface of a store through which replicas share the states of targets."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class TargetState(NamedTuple):
    """The breaker and the hold of a target. All times are relative to now, because machines share no clock.

    The breaker of a machine is open if the opening is later than the recovery.

    Attributes:
        name: The name that the target has at all machines.
        opened_ago: Seconds since a machine has opened its breaker; None if none has.
        recovered_ago: Seconds since a probe last succeeded; None if that is not known.
        next_probe_in: Seconds until the next probe is due, negative for the past; None with closed breakers.
        interval: The current interval between probes in seconds.
        held_for: Seconds until the end of the hold; None without a hold.
        rate_limited: Whether a rate limit is the reason for the hold.
        version: Changes whenever a machine has stored the state; 0 for one to store.
        is_own: Whether this machine was the last to store the state.
    """

    name: str
    opened_ago: float | None
    recovered_ago: float | None
    next_probe_in: float | None
    interval: float
    held_for: float | None
    rate_limited: bool
    version: float = 0.0
    is_own: bool = True


@runtime_checkable
class TargetStore(Protocol):
    """A store that several machines may share."""

    async def exchange_targets(self, machine: str, changed: Sequence[TargetState]) -> list[TargetState]:
        """Stores the states that a machine has changed. Returns the states that any machine has changed recently.

        Raises:
            StoreUnavailable: The store is unreachable.
        """
        ...
