"""The state of one worker, for administrators: its targets and its running calls."""

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parley.admin.v1 import operations_pb2 as messages
from parley.core.background import PeriodicTask
from parley.core.errors import CallCancelled
from parley.core.routing.breaker import Breaker
from parley.core.routing.router import Router
from parley.core.routing.targets import LiveTarget
from parley.logs import Level
from parley.logs.recent import RecentLines
from parley.rpc.call import Call
from parley.rpc.error_catalogue import reason_name
from parley.rpc.overrides import OverridesFile

_REFRESH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class PastReload:
    """A reload of the configuration.

    Attributes:
        began: When it began, in Unix seconds; None if there was none.
        is_done: Whether it has ended.
        error: Why the old configuration stays in use; None after a success.
        changes: What the new configuration changes, in words.
    """

    began: int | None
    is_done: bool
    error: str | None
    changes: Sequence[str]


ReadReload = Callable[[], PastReload]
"""Reads the last reload."""


class Operations:
    """The running service of one worker.

    Args:
        router: Holds the targets.
        overrides: What an administrator has set.
        level: The log level that this worker was started with.
        set_level: Sets the log level of this worker.
        signal_parley: Sends a signal to the process that supervises the workers; by default to the parent.
        recent: The latest log lines of this worker; None if it keeps none.
        last_reload: Reads the last reload; None if the configuration cannot be read again.
        running: The running calls of callers, kept up to date by the server.
    """

    def __init__(  # noqa: PLR0913 - the parts of the service
        self,
        router: Router,
        overrides: OverridesFile,
        level: Level = "info",
        set_level: Callable[[Level], None] = lambda _: None,
        running: set[Call] | None = None,
        *,
        signal_parley: Callable[[int], None] | None = None,
        recent: RecentLines | None = None,
        last_reload: ReadReload | None = None,
    ) -> None:
        self.signal_parley = signal_parley or _signal_parent()
        self.last_reload = last_reload
        self._recent = recent or RecentLines()
        self._router = router
        self.overrides = overrides
        self.configured_level: Level = level
        self.level: Level = level
        self._set_level = set_level
        self._closed = overrides.read().targets.closed  # before this worker started, with closed breakers
        self.refresh()
        self._refreshing = PeriodicTask("the application of overrides", self._refresh, _REFRESH_SECONDS)
        self.running: set[Call] = set() if running is None else running

    def start(self) -> None:
        """Starts to apply what an administrator sets at another worker."""
        self._refreshing.start()

    async def stop(self) -> None:
        """Ends what `start` has started."""
        await self._refreshing.stop()

    def refresh(self) -> None:
        """Applies what an administrator has set since the last time."""
        current = self.overrides.read()
        self._router.override(current.targets)
        for target, time_closed in current.targets.closed.items():
            if self._closed.get(target) != time_closed:
                self._router.close(target)
        self._closed = current.targets.closed
        level = current.level() or self.configured_level
        if level != self.level:
            self.level = level
            self._set_level(level)

    async def _refresh(self) -> None:
        self.refresh()

    def targets(self) -> messages.ListTargetsResponse:
        """Returns the targets of this worker."""
        self.refresh()
        calls = Counter(target for call in self.running if (target := _target(call)))
        return messages.ListTargetsResponse(
            targets=[self._describe(target, calls[target.name]) for target in self._router.targets]
        )

    def calls(self, request: messages.ListCallsRequest, worker: str) -> messages.ListCallsResponse:
        """Returns the running calls of this worker that the request selects."""
        found = [running_call(call, worker) for call in list(self.running)]
        return messages.ListCallsResponse(calls=[call for call in found if _selects(request, call)])

    def cancel(self, request_id: str, worker: str) -> messages.CancelCallResponse:
        """Cancels the running calls with this id. Returns them as they were."""
        chosen = [call for call in list(self.running) if call.request_id == request_id]
        cancelled = [running_call(call, worker) for call in chosen]
        for call in chosen:
            call.cancel(CallCancelled())
        return messages.CancelCallResponse(calls=cancelled)

    def log_lines(self, request_id: str, most: int, worker: str) -> messages.ListCallLogLinesResponse:
        """Returns the latest log lines of a request, or of all requests for an empty id."""
        lines = [
            messages.CallLogLine(request_id=one.request_id, time=one.time, line=one.line.decode(), worker=worker)
            for one in self._recent.find(request_id, most)
        ]
        return messages.ListCallLogLinesResponse(lines=lines)

    def _describe(self, target: LiveTarget, calls: int) -> messages.Target:
        breakers = target.shown_breakers
        breaker = breakers.shared
        found = messages.Target(
            name=target.name,
            backend=target.backend_name,
            model=target.model,
            models=self._router.models_of(target.name),
            breaker=messages.BREAKER_STATE_OPEN if target.is_opened else _state(breaker),
            opened=target.is_opened,
            workers=1,
            workers_open=int(target.is_opened or not breaker.is_closed),
            callers_open=breakers.open_origins,
            unhealthy=not target.healthy,
            calls=calls,
            queued=target.queued,
            max_calls=target.max_calls,
            weight=target.weight,
            weight_override=self.overrides.read().targets.weights.get(target.name),
        )
        if counts := getattr(target.backend, "key_counts", None):  # backends with several keys have it
            found.keys, found.keys_left_out = sum(counts), counts[1]
        if (cause := breaker.cause()) is not None:
            found.cause = reason_name(cause.reason)
        if (delay := breaker.remaining_delay()) > 0:
            found.admits_in = delay
        return found


def _signal_parent() -> Callable[[int], None]:
    """Returns a function that sends the present parent a signal, unless it has ended."""
    parent = os.getppid()

    def send(number: int) -> None:
        if os.getppid() == parent:
            os.kill(parent, number)

    return send


def running_call(call: Call, worker: str) -> messages.RunningCall:
    """Describes a running call."""
    found = messages.RunningCall(
        request_id=call.request_id,
        method=call.method,
        age=time.perf_counter() - call.started,
        worker=worker,
        target=_target(call),
    )
    if call.caller is not None:
        found.account, found.key = call.caller.account, call.caller.key_id
    if (chat := call.outcome.running) is not None:
        found.model, found.tokens = chat.model.id, chat.tokens
        if (session_id := chat.lease.session_id) is not None:
            found.session_id = session_id
    return found


def _target(call: Call) -> str | None:
    """Returns the name of the target of the latest attempt; None before it."""
    chat = call.outcome.running
    attempts = chat.execution.attempts if chat is not None and chat.execution is not None else ()
    return attempts[-1].candidate.target.label if attempts else None


def _selects(request: messages.ListCallsRequest, call: messages.RunningCall) -> bool:
    """Returns whether a call has the account and the model of the request."""
    is_account = not request.HasField("account") or request.account == call.account
    return is_account and (not request.HasField("model") or request.model == call.model)


def _state(breaker: Breaker) -> messages.BreakerState.ValueType:
    if breaker.is_closed:
        return messages.BREAKER_STATE_CLOSED
    return messages.BREAKER_STATE_HALF_OPEN if breaker.is_half_open else messages.BREAKER_STATE_OPEN


_SEVERITY = (messages.BREAKER_STATE_OPEN, messages.BREAKER_STATE_HALF_OPEN, messages.BREAKER_STATE_CLOSED)


def merge_targets(answers: list[messages.ListTargetsResponse]) -> messages.ListTargetsResponse:
    """Merges the answers of several workers: counts are added, and the worst state of a breaker is kept."""
    merged: dict[str, messages.Target] = {}
    for answer in answers:
        for target in answer.targets:
            known = merged.setdefault(target.name, target)
            if known is not target:
                _add(known, target)
    return messages.ListTargetsResponse(targets=merged.values())


def _add(known: messages.Target, other: messages.Target) -> None:
    """Adds the state of a target in another worker."""
    if _SEVERITY.index(other.breaker) < _SEVERITY.index(known.breaker):
        known.breaker = other.breaker
        known.ClearField("cause")
        known.ClearField("admits_in")
        if other.HasField("admits_in"):
            known.admits_in = other.admits_in
    if other.HasField("cause") and not known.HasField("cause"):
        known.cause = other.cause
    known.unhealthy |= other.unhealthy
    known.opened |= other.opened
    for name in ("workers", "workers_open", "callers_open", "calls", "queued"):
        setattr(known, name, getattr(known, name) + getattr(other, name))
    known.keys_left_out = max(known.keys_left_out, other.keys_left_out)
    if known.HasField("max_calls"):
        known.max_calls += other.max_calls
