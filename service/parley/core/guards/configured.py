"""One configured guard: its deadline, its breakers, and what a failure costs."""

import asyncio
import time
from typing import NamedTuple

import structlog

from parley.config import Guard as GuardConfig
from parley.core.errors import DeadlineExceeded, GuardUnavailable
from parley.core.guards.decisions import Decision, Refusal, decision
from parley.core.guards.records import GuardOutcome, GuardRecord
from parley.core.offload import in_thread
from parley.core.ports import Guard, GuardError
from parley.core.routing.call_origin import CallOrigin
from parley.core.routing.failure_policy import HealthEffect
from parley.core.routing.target_breakers import TargetBreakers
from parley.guard.v1.guard_pb2 import CheckRequest, CheckResponse

_MANY_SPANS = 500  # of which the validation is left to the thread of large calls: it takes over a millisecond
_log = structlog.get_logger()


class CheckedCall(NamedTuple):
    """The call that a check belongs to.

    Attributes:
        origin: Its account; failures that its text may have caused count for it alone.
        deadline: Its deadline, as a time of the event loop's clock; None for none.
    """

    origin: CallOrigin
    deadline: float | None


class ConfiguredGuard:
    """A guard with its settings.

    A guard that cannot be reached is not called by any call for a while, and one that fails in another way not by calls
    of the account that sees it fail: the text may be the cause. The rules are those of targets (`TargetBreakers`). A
    guard that is not remote has no deadline and no breakers: it is always reachable, and limits its own work.

    Args:
        name: The name in the configuration.
        config: The settings.
        guard: Decides.
    """

    def __init__(self, name: str, config: GuardConfig, guard: Guard) -> None:
        self.name = name
        self.config = config
        self._guard = guard
        self._breakers = TargetBreakers(time.monotonic) if guard.is_remote else None

    async def check(self, request: CheckRequest, call: CheckedCall, record: GuardRecord) -> Decision:
        """Returns the decision on the texts of a request. A failed guard lets them pass, if it is configured to.

        A redaction is recorded by its application: the beginning of a span in a stream may be none.

        Raises:
            GuardUnavailable: The guard failed, and is closed on failure.
            DeadlineExceeded: The call's own deadline passed.
        """
        started = time.monotonic()
        try:
            found = await self._decide(request, call)
        except GuardError as error:
            self._fail(error, started, record)
            return None
        outcome, reason = GuardOutcome.ALLOWED, ""
        if isinstance(found, Refusal):
            outcome, reason = GuardOutcome.REFUSED, found.reason
        record.add(outcome, started, time.monotonic(), reason)
        return found

    def require_admitted(self, call: CheckedCall, record: GuardRecord) -> None:
        """Raises GuardUnavailable if a check would fail at once, and the guard is closed on failure."""
        if self.config.on_failure == "closed" and self._breakers is not None and not self._breakers.admits(call.origin):
            self._fail(_not_admitted(), time.monotonic(), record)

    def refuse_media(self, record: GuardRecord) -> bool:
        """Returns whether images, audio and files are refused; then records the refusal."""
        if not self.config.refuses_media:
            return False
        now = time.monotonic()
        record.add(GuardOutcome.REFUSED, now, now, "not_text")
        return True

    async def close(self) -> None:
        """Closes every connection."""
        await self._guard.close()

    async def _decide(self, request: CheckRequest, call: CheckedCall) -> Decision:
        if self._breakers is None:
            return await self._checked(request, call.deadline)
        permit = self._breakers.try_acquire_permit(call.origin)
        if permit is None:
            raise _not_admitted()
        try:
            found = await self._checked(request, call.deadline)
        except GuardError as error:
            effect = HealthEffect.FAILURE if error.reason == "unreachable" else HealthEffect.SUSPECT
            self._breakers.record_failure(call.origin, permit, effect, GuardUnavailable)
            raise
        except BaseException:
            self._breakers.release(call.origin, permit)
            raise
        self._breakers.record_success(call.origin, permit)
        return found

    async def _checked(self, request: CheckRequest, deadline: float | None) -> Decision:
        """Returns the decision within the guard's deadline, and the call's. Every failure is a GuardError."""
        try:
            response = await self._response(request, deadline)
            if len(response.redact.spans) < _MANY_SPANS:
                return decision(request, response)
            return await in_thread(decision, request, response)
        except (GuardError, DeadlineExceeded):
            raise
        except Exception as error:
            raise GuardError("error", f"unexpected {type(error).__name__}") from error

    async def _response(self, request: CheckRequest, deadline: float | None) -> CheckResponse:
        own = asyncio.get_running_loop().time() + self.config.deadline if self._guard.is_remote else None
        ends = [end for end in (own, deadline) if end is not None]
        try:
            async with asyncio.timeout_at(min(ends, default=None)) as limit:
                return await self._guard.check(request)
        except TimeoutError:
            if not limit.expired():
                raise
            if own is None or (deadline is not None and deadline < own):
                raise DeadlineExceeded from None
            raise GuardError("timeout", f"no response within {self.config.deadline:g} s") from None

    def _fail(self, error: GuardError, started: float, record: GuardRecord) -> None:
        """Records a failure. Raises GuardUnavailable if the guard is closed on failure."""
        if error.__cause__ is not None and not record.cause:  # once for all windows of a stream
            _log.error("guard failed unexpectedly", guard=self.name, exc_info=error.__cause__)
        is_open = self.config.on_failure == "open"
        outcome = GuardOutcome.FAILED_OPEN if is_open else GuardOutcome.FAILED_CLOSED
        record.add(outcome, started, time.monotonic(), error.reason, error.cause)
        if not is_open:
            raise GuardUnavailable(self.name, error.reason, error.cause)


def _not_admitted() -> GuardError:
    return GuardError("breaker_open", "it has failed before; the next check is due soon")
