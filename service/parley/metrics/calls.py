"""The metrics of calls: each call is observed once, at its end, from the facts of its log line and its receipt.

A search in a dictionary finds all series of a call or an attempt at once. Adding to them is written out where it
happens: a function for each value would double the cost.

The labels are names of the configuration, so that callers cannot add series: all names of a wildcard have its own.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from parley.config import target_name
from parley.core.call import CallOutcome
from parley.core.errors import LimitExceeded, ParleyError
from parley.core.messages.text_completion import TokenCounts
from parley.core.usage.attempts import AttemptOutcome, AttemptRecord
from parley.metrics.prometheus import Metric
from parley.metrics.series import Counter, Histogram
from parley.v1.error_reason_pb2 import ErrorReason

if TYPE_CHECKING:  # loaded only where guards are configured
    from parley.core.guards.records import GuardRecord

# The buckets that OpenTelemetry's semantic conventions for generative AI recommend.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

DIALECTS = frozenset({"chipp", "upchatty", "fastapi", "openpipe", "openai"})
_COMPLETED = AttemptOutcome.COMPLETED
_MAX_KNOWN = 4_000  # combinations whose series are remembered; all are forgotten beyond it
_MODEL = ("gen_ai_operation_name", "gen_ai_request_model")
_TARGET = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "target")
_CHAT = "chat"  # the operation's name in the conventions


class _CallSeries:
    """The series of the calls with one RPC, dialect, model, status and reason; None where the call has no value."""

    __slots__ = ("count", "duration", "first_token", "length", "request")

    def __init__(self, metrics: "CallMetrics", labels: tuple[str, str, str, str, str]) -> None:
        rpc, _, model, status, reason = labels
        self.count = metrics.calls.series(*labels)
        self.duration = metrics.duration.series(rpc, status)
        is_completion, is_stream = "ChatCompletion" in rpc, rpc.startswith("Stream")
        self.request = metrics.request.series(_CHAT, model, reason) if is_completion else None
        self.first_token = metrics.first_token.series(_CHAT, model) if is_completion else None
        self.length = metrics.length.series(model) if is_stream else None


class _AttemptSeries:
    """The series of the attempts with one model, target, kind, outcome and reason."""

    __slots__ = ("cached", "cost", "count", "duration", "first_token", "input", "output", "per_token", "reasoning")

    def __init__(self, metrics: "CallMetrics", attempt: AttemptRecord) -> None:
        model = attempt.model_label or attempt.model_id
        target = attempt.target_label or target_name(attempt.backend, attempt.target_model)
        reason = reason_name(attempt.error)
        names = (_CHAT, metrics.providers.get(attempt.backend, ""), model, target)
        self.count = metrics.attempts.series(model, target, attempt.kind, attempt.outcome or "", reason)
        self.duration = metrics.attempt_duration.series(*names, reason)
        self.first_token = metrics.target_first_token.series(target)
        self.per_token = metrics.per_token.series(*names)
        self.input, self.output = (
            (metrics.tokens.series(model, target, kind), metrics.usage.series(*names, kind))
            for kind in ("input", "output")
        )
        self.cached = metrics.tokens.series(model, target, "cached_input")
        self.reasoning = metrics.tokens.series(model, target, "reasoning")
        self.cost = metrics.cost.series(model, target)


class CallMetrics:
    """Counts calls, attempts and tokens, and measures how long they take.

    Args:
        providers: The kind of each backend, by the name of the backend.
    """

    def __init__(self, providers: Mapping[str, str]) -> None:
        self.providers = providers
        self._calls: dict[tuple[str, str | None, str, str, object], _CallSeries] = {}
        self._attempts: dict[tuple[str, str, str, str, object, object], _AttemptSeries] = {}
        self.calls = Counter("parley_calls", "Calls that have ended.", ("rpc", "dialect", "model", "status", "reason"))
        self.duration = Histogram(
            "parley_call_duration_seconds", "Duration of calls, from first byte to last.", _SECONDS, ("rpc", "status")
        )
        self.request = Histogram(
            "gen_ai_server_request_duration_seconds",
            "Duration of completions, from first byte to last.",
            _SECONDS,
            (*_MODEL, "error_type"),
        )
        self.first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from the first attempt of a completion to the first token, retries included.",
            _FIRST_TOKEN,
            _MODEL,
        )
        self.length = Histogram("parley_stream_length_tokens", "Tokens of complete streams.", _TOKENS, ("model",))
        self.rejections = Counter("parley_limit_rejections", "Calls that a limit rejected.", ("limit", "subject"))
        self.replays = Counter("parley_replayed_calls", "Calls answered with the stored answer of an Idempotency-Key.")
        self.cached = Counter("parley_cache_calls", "Calls of models with a cache.", ("model", "result", "reason"))
        self.attempts = Counter(
            "parley_attempts", "Requests to targets.", ("model", "target", "kind", "outcome", "reason")
        )
        self.attempt_duration = Histogram(
            "gen_ai_client_operation_duration_seconds",
            "Duration of requests to targets.",
            _SECONDS,
            (*_TARGET, "error_type"),
        )
        self.target_first_token = Histogram(
            "parley_attempt_time_to_first_token_seconds",
            "Time from a request to a target to its first token.",
            _FIRST_TOKEN,
            ("target",),
        )
        self.per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time of each token after the first one, in streams of targets.",
            _PER_TOKEN,
            _TARGET,
        )
        self.usage = Histogram(
            "gen_ai_client_token_usage", "Tokens of requests to targets.", _TOKENS, (*_TARGET, "gen_ai_token_type")
        )
        self.tokens = Counter("parley_tokens", "Tokens of requests to targets.", ("model", "target", "type"))
        self.guard_checks = Counter("parley_guard_checks", "Checks of guards.", ("guard", "phase", "outcome"))
        self.guard_duration = Histogram(
            "parley_guard_check_duration_seconds", "Duration of checks of guards.", _SECONDS, ("guard", "phase")
        )
        self.cost = Counter("parley_cost", "Cost in the currency of the configured prices.", ("model", "target"))

    def show_open_failures(self, guard: str) -> None:
        """Shows the open failures of a guard as 0: Prometheus sees no rise in a series that begins with 1."""
        for phase in ("before", "after"):
            self.guard_checks.series(guard, phase, "failed_open")

    def collect(self) -> Iterator[Metric]:
        """Yields the families, for prometheus-client."""
        for family in vars(self).values():
            if isinstance(family, Counter | Histogram):
                yield from family.collect()

    def observe(  # noqa: PLR0913, PLR0917 - the labels; keywords would cost as much as the rest
        self,
        rpc: str,
        dialect: str | None,
        status: str,
        error: ParleyError | None,
        outcome: CallOutcome,
        seconds: float,
    ) -> None:
        """Counts a call that has ended.

        Args:
            rpc: The name of the RPC.
            dialect: The dialect of REST; None, or any other text, for gRPC.
            status: The name of the gRPC status.
            error: The error of a failed call.
            outcome: The model and the attempts of a completion.
            seconds: The duration.
        """
        key = rpc, dialect, outcome.model_id, status, error and error.reason
        series = self._calls.get(key) or self._new_calls(key, error)
        bucket = bisect_left(_SECONDS, seconds)
        series.count[0] += 1
        series.duration[bucket] += 1
        series.duration[-1] += seconds
        if error is not None and isinstance(error, LimitExceeded):
            self.rejections.series(error.limit, error.subject.partition(":")[0] or "address")[0] += 1
        for record in outcome.guards:
            self._observe_guard(record)
        if series.request is None:
            return
        series.request[bucket] += 1
        series.request[-1] += seconds
        if outcome.attempts:
            self._observe_attempts(series, outcome)
        elif outcome.replayed:
            self.replays.series()[0] += 1
        if outcome.cache is not None:
            self.cached.series(outcome.model_id, outcome.cache.result, outcome.cache.reason)[0] += 1

    def _observe_guard(self, record: "GuardRecord") -> None:
        duration = self.guard_duration.series(record.guard, record.phase)
        for outcome, seconds in record.checks:
            self.guard_checks.series(record.guard, record.phase, outcome)[0] += 1
            _add(duration, _SECONDS, seconds)

    def _observe_attempts(self, call: _CallSeries, outcome: CallOutcome) -> None:
        attempts = outcome.attempts
        first_token = None
        for attempt in attempts:
            error, used = attempt.error, attempt.usage
            reason = error and error.reason
            key = (
                attempt.model_label or attempt.model_id,
                attempt.backend,
                attempt.target_label or attempt.target_model,
                attempt.kind,
                attempt.outcome,
                reason,
            )
            series = self._attempts.get(key) or self._new_attempts(key, attempt)
            series.count[0] += 1
            seconds = (attempt.ended or attempt.started) - attempt.started
            series.duration[bisect_left(_SECONDS, seconds)] += 1
            series.duration[-1] += seconds
            if used is not None:
                prompt, produced = used.prompt_tokens, used.completion_tokens
                (read, prompts), (written, answers) = series.input, series.output
                read[0] += prompt
                prompts[bisect_left(_TOKENS, prompt)] += 1
                prompts[-1] += prompt
                written[0] += produced
                answers[bisect_left(_TOKENS, produced)] += 1
                answers[-1] += produced
                if not isinstance(used, TokenCounts):
                    series.cached[0] += used.prompt_tokens_details.cached_tokens
                    series.reasoning[0] += used.completion_tokens_details.reasoning_tokens
            if attempt.cost is not None:
                series.cost[0] += attempt.cost
            if attempt.first_token is not None:
                first_token = first_token or attempt.first_token
                _observe_stream(series, attempt)
        if first_token is not None and call.first_token is not None:
            _add(call.first_token, _FIRST_TOKEN, first_token - attempts[0].started)
        if call.length is not None and used is not None and attempt.outcome is _COMPLETED:
            _add(call.length, _TOKENS, used.completion_tokens)

    def _new_calls(self, key: tuple[str, str | None, str, str, object], error: ParleyError | None) -> _CallSeries:
        rpc, dialect, model, status, _ = key
        dialect = dialect if dialect in DIALECTS else "grpc"
        found = _CallSeries(self, (rpc, dialect, model, status, reason_name(error)))
        if len(self._calls) >= _MAX_KNOWN:
            self._calls.clear()
        self._calls[key] = found
        return found

    def _new_attempts(self, key: tuple[str, str, str, str, object, object], attempt: AttemptRecord) -> _AttemptSeries:
        found = _AttemptSeries(self, attempt)
        if len(self._attempts) >= _MAX_KNOWN:
            self._attempts.clear()
        self._attempts[key] = found
        return found


def _observe_stream(series: _AttemptSeries, attempt: AttemptRecord) -> None:
    """Measures an attempt that had a first token."""
    assert attempt.first_token is not None  # noqa: S101 - for the type checker
    _add(series.first_token, _FIRST_TOKEN, attempt.first_token - attempt.started)
    tokens = attempt.usage.completion_tokens if attempt.usage is not None else 0
    if tokens > 1 and attempt.ended is not None and attempt.outcome is _COMPLETED:
        _add(series.per_token, _PER_TOKEN, (attempt.ended - attempt.first_token) / (tokens - 1))


def _add(series: list[float], bounds: tuple[float, ...], value: float) -> None:
    series[bisect_left(bounds, value)] += 1
    series[-1] += value


def reason_name(error: ParleyError | None) -> str:
    """Returns the reason of an error without its prefix; empty without an error."""
    return ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_") if error is not None else ""
