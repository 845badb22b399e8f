"""The records of a call's guards, for receipts, the log, metrics and traces."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from parley.v1.receipt_pb2 import Receipt

Phase: TypeAlias = Literal["before", "after"]


class GuardOutcome(StrEnum):
    """The outcome of a check, as receipts name it. Later ones are more severe."""

    __hash__ = str.__hash__

    ALLOWED = "allowed"
    REDACTED = "redacted"
    FAILED_OPEN = "failed_open"
    REFUSED = "refused"
    FAILED_CLOSED = "failed_closed"


_SEVERITY = {outcome: number for number, outcome in enumerate(GuardOutcome)}


@dataclass(slots=True, eq=False)
class GuardRecord:
    """The checks of one guard in one phase of a call. Times are seconds of the monotonic clock.

    Attributes:
        guard: The name of the guard.
        phase: The side of the model.
        started: The time of the first check.
        ended: The time at which the last check ended.
        checks: The outcome and the duration of each check.
        outcome: The most severe outcome.
        reason: The guard's reason for a refusal, or the kind of a failure; empty otherwise.
        cause: What only the operator may see; empty without a failure.
    """

    guard: str
    phase: Phase
    started: float = 0.0
    ended: float = 0.0
    checks: list[tuple[GuardOutcome, float]] = field(default_factory=list)
    outcome: GuardOutcome = GuardOutcome.ALLOWED
    reason: str = ""
    cause: str = ""

    def add(self, outcome: GuardOutcome, started: float, ended: float, reason: str = "", cause: str = "") -> None:
        """Records a check."""
        if not self.checks:
            self.started = started
        self.ended = ended
        self.checks.append((outcome, ended - started))
        if _SEVERITY[outcome] > _SEVERITY[self.outcome]:
            self.outcome, self.reason, self.cause = outcome, reason, cause

    def mark_redacted(self) -> None:
        """Records that spans of the last check were replaced. Until then its outcome is `allowed`."""
        self.checks[-1] = GuardOutcome.REDACTED, self.checks[-1][1]
        if _SEVERITY[GuardOutcome.REDACTED] > _SEVERITY[self.outcome]:
            self.outcome = GuardOutcome.REDACTED

    @property
    def milliseconds(self) -> int:
        """The duration of all checks."""
        return int(1000 * sum(seconds for _, seconds in self.checks) + 0.5)

    def log_fields(self) -> dict[str, Any]:
        """Returns the record for the log line."""
        fields: dict[str, Any] = {"guard": self.guard, "phase": self.phase, "outcome": self.outcome.value}
        if self.reason:
            fields["reason"] = self.reason
        if self.cause:
            fields["cause"] = self.cause
        if len(self.checks) > 1:
            fields["checks"] = len(self.checks)
        return fields | {"ms": self.milliseconds}

    def add_to(self, receipt: Receipt) -> None:
        """Adds the record to a receipt."""
        result = receipt.guards.add(guard=self.guard, phase=self.phase, outcome=self.outcome.value)
        result.checks, result.duration_ms = len(self.checks), self.milliseconds
        if self.reason:
            result.reason = self.reason
