"""What an administrator has set for targets, in place of what the configuration and the breakers say."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TargetOverrides:
    """The settings of an administrator, by the names of targets. They hold until they are cleared.

    Attributes:
        opened: The targets that admit no calls.
        closed: When breakers were closed the last time, in Unix seconds. Each time resets them once.
        weights: Weights in place of the configured ones.
    """

    opened: frozenset[str] = frozenset()
    closed: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
