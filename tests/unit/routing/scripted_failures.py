"""A call whose targets fail as scripted, for tests of the retry state."""

from dataclasses import dataclass, field

from parley.config import Retries
from parley.core.errors import (
    ParleyError,
)
from parley.core.routing.attempts import Attempt
from parley.core.routing.budget import RetryBudget
from parley.core.routing.call_origin import CallOrigin
from parley.core.routing.retry_state import RetryState
from parley.core.routing.targets import Candidate
from parley.core.usage.attempts import AttemptKind
from tests.unit.routing.routes import CALL, FAILURES, Clock


@dataclass
class Play:
    """A call in which every target fails as `failures` says, in this order, and then answers unless the last is `…`."""

    failures: dict[str, list[str]]
    retries: Retries = field(default_factory=Retries)
    jitter: float = 0.5
    deadline: float | None = None
    clock: Clock = field(default_factory=Clock)
    called: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    error: ParleyError | None = None
    account: str = ""
    origin: CallOrigin | None = None

    def of(self, waiting: list[Candidate]) -> "Play":
        """Runs the call to its end."""
        clock = self.clock
        retry_state = RetryState(
            "m",
            waiting,
            self.retries,
            RetryBudget(0.2, clock),
            deadline=self.deadline,
            clock=clock,
            origin=self.origin or CallOrigin(self.account),
            jitter=lambda: self.jitter,
        )
        try:
            self._play(retry_state)
        except ParleyError as error:
            self.error = error
        return self

    def _play(self, retry_state: RetryState) -> None:
        again: Attempt | None = None
        while True:
            candidate = again.candidate if again else retry_state.next_candidate()
            attempt = retry_state.start_attempt(
                candidate, CALL, AttemptKind.RETRY if again else AttemptKind.FIRST, again
            )
            assert attempt is not None
            name = candidate.target.name
            failures = self.failures.get(name, [])
            number = sum(one == name for one in self.called)
            self.called.append(name)
            if not failures or (number >= len(failures) and failures[-1] != "…"):
                return retry_state.completed(attempt)
            kind = failures[number] if number < len(failures) - (failures[-1] == "…") else failures[-2]
            pause = retry_state.failed(attempt, FAILURES[kind]())
            again = None if pause is None else attempt
            if pause is not None:
                self.pauses.append(round(pause, 6))
                self.clock.now += pause
