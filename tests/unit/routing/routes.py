"""Shared parts of the routing tests: a settable clock, targets, and failures for every row of the table."""

from collections.abc import Callable

from parley.config import Model, Target, Timeouts
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    ParleyError,
    StreamBroken,
    UnsupportedParameter,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreadable,
    UpstreamUnrecognized,
)
from parley.core.ports import Caller, UpstreamCall
from parley.core.routing.call_origin import PLAIN_ORIGIN
from parley.core.routing.execution import Execution
from parley.core.routing.router import Router
from parley.core.routing.targets import Candidate, LiveTarget
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from tests.rpc.scripted import ScriptedBackend


def _retried() -> ParleyError:
    error = UpstreamUnavailable("unavailable on a second connection too")
    error.retries = 1
    return error


def _doubtful(error: UpstreamError) -> UpstreamError:
    error.is_suspect = True
    return error


FAILURES: dict[str, Callable[[], ParleyError]] = {
    "unavailable": lambda: UpstreamUnavailable("unavailable"),
    "unavailable twice": _retried,
    "busy for 2 s": lambda: UpstreamRateLimited("busy", retry_after=2.0),
    "busy for 10 s": lambda: UpstreamRateLimited("busy", retry_after=10.0),
    "busy for 60 s": lambda: UpstreamRateLimited("busy", retry_after=60.0),
    "busy": lambda: UpstreamRateLimited("busy"),
    "timeout": lambda: UpstreamTimeout("timeout"),
    "broken": lambda: StreamBroken("broken"),
    "unreadable": lambda: UpstreamUnreadable("unreadable"),
    "too long": lambda: ContextLengthExceeded("too long"),
    "policy": lambda: ContentPolicy("policy"),
    "rejected": lambda: UpstreamRejected("rejected"),
    "misconfigured": lambda: UpstreamMisconfigured("misconfigured"),
    "quota": lambda: UpstreamQuotaExhausted("m", code="billing_hard_limit_reached"),
    "away for 60 s": lambda: UpstreamUnavailable("away", retry_after=60.0),
    "unrecognized": lambda: UpstreamUnrecognized("unrecognized"),
    "500": lambda: _doubtful(UpstreamUnavailable("500")),
    "404": lambda: _doubtful(UpstreamMisconfigured("404")),
    "rejected perhaps": lambda: _doubtful(UpstreamRejected("rejected perhaps")),
    "quota perhaps": lambda: _doubtful(UpstreamQuotaExhausted("m")),
    "oversized": lambda: _doubtful(UpstreamRateLimited("oversized", retry_after=60.0)),
    "unsupported": lambda: UnsupportedParameter("unsupported", param="audio"),
}
ANYONE = Caller("default", "key_1")
CALL = UpstreamCall(CreateChatCompletionRequest(), "upstream", Timeouts())


class Clock:
    """A settable clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Returns the time in seconds."""
        return self.now


def candidates(clock: Clock, *names: str, model_id: str = "m") -> list[Candidate]:
    """Returns one candidate per name, all of one model."""
    targets = [Target(backend=name) for name in names]
    model = Model(id=model_id, targets=targets)
    return [Candidate(model, target, LiveTarget(target, ScriptedBackend(), None, clock)) for target in targets]


def has_recorded_failure(target: LiveTarget) -> bool:
    """Returns whether a breaker of the target has recorded a failure of a call without parameters."""
    breakers = target.breakers._breakers(PLAIN_ORIGIN)  # noqa: SLF001 - what the breakers recorded
    return any(failed for breaker in breakers for _, failed in breaker._results)  # noqa: SLF001


def new_execution(
    router: Router, model: str, request: CreateChatCompletionRequest | None = None, deadline: float | None = None
) -> Execution:
    """Prepares a call of a model without a session; by default the request is empty."""
    request = request or CreateChatCompletionRequest()
    return router.new_execution(
        router.model(ANYONE, model), request, request.messages, session_id=None, deadline=deadline
    )
