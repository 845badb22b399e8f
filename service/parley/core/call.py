"""The state of one call of `Chat`: what it was called with, and what is known of its answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from parley.config import Model
from parley.core.messages import functions
from parley.core.messages.text_completion import TextCompletion, as_message
from parley.core.ports import Caller, CallTrace, RequestShape
from parley.core.ports.plain_text import Batch, PlainText
from parley.core.routing.catalogue import Retirement
from parley.core.routing.execution import Execution
from parley.core.sessions.call_lease import CallLease
from parley.core.sessions.idempotency import Key
from parley.core.streaming.accumulator import BoundedAccumulator, CompletionAccumulator
from parley.core.streaming.shaper import StreamShaper, stamp
from parley.core.usage import receipts
from parley.core.usage.admission import UNLIMITED_CALL, RateLimitStatus
from parley.core.usage.attempts import AttemptRecord
from parley.core.usage.tokens import estimate_tokens
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.receipt_pb2 import Receipt

if TYPE_CHECKING:  # loaded only where caches and guards are configured
    from parley.core.cache.answers import CacheUse
    from parley.core.cache.key import CachedCall
    from parley.core.guards.call_guards import CallGuards
    from parley.core.guards.records import GuardRecord


_BYTES_OF_CHUNKS = 16  # of a stream whose chunks are short, for each byte of its answer


class CallOptions(NamedTuple):
    """What a call sets in addition to its request.

    Attributes:
        deadline: When the caller gives up, in seconds of the event loop's clock; None without a deadline.
        key: The `Idempotency-Key`; None for a call without one.
        hops: The number of Parleys that the call has passed through before this one.
        trace: The trace of the call; None without tracing.
        shape: The shape of the request if it has texts; None otherwise, and for streams and large requests, which would
            keep the texts for long.
        forwarded: The caller's headers that some backend may receive.
        request_id: The id of the call.
        cache_control: The request header `Cache-Control`; None without one.
    """

    deadline: float | None = None
    key: Key | None = None
    hops: int = 0
    trace: CallTrace | None = None
    shape: RequestShape | None = None
    forwarded: Sequence[tuple[str, str]] = ()
    request_id: str = ""
    cache_control: str | None = None


@dataclass(slots=True, eq=False)
class CallOutcome:
    """What a call returns in addition to its answer. Filled in while the call runs, and also when it fails.

    Attributes:
        rate_limits: The caller's limits, set when the call is admitted or rejected, before the first chunk of a
            stream; None until then. Empty without configured limits.
        replayed: Whether the answer is the stored one of the `Idempotency-Key`. It costs nothing.
        attempts: The records of the attempts, set when the call ends.
        cost: The cost of all attempts; None if it is not known.
        duration_ms: Milliseconds from the start of the first attempt to the end of the last; None if the call ended
            before the routing.
        is_access_revoked: Whether the call was cancelled because its caller has lost access.
        running: What is known of the answer while the call runs; None for calls without one.
        model_id: The id in the configuration of the model that the request resolves to; empty before, and if there is
            none. Of a wildcard it is the wildcard's.
        retires: When the id that the request names retires, and the id to use; None if it does not.
        answer: The answer, or its part, if the trace captures content.
        guards: What the guards of the model have decided.
        cache: How the call uses the cache of its model; None if that has none.
    """

    rate_limits: Sequence[RateLimitStatus] | None = None
    replayed: bool = False
    attempts: Sequence[AttemptRecord] = ()
    cost: float | None = None
    duration_ms: int | None = None
    is_access_revoked: bool = False
    running: "ChatCall | None" = None
    model_id: str = ""
    retires: Retirement | None = None
    answer: ChatCompletion | None = None
    guards: "Sequence[GuardRecord]" = ()
    cache: "CacheUse | None" = None
    _receipt: bytes | None = None

    def record_guards(self, records: "Sequence[GuardRecord]") -> None:
        """Records what guards have decided."""
        self.guards = [record for record in records if record.checks]

    def receipt_bytes(self) -> bytes | None:
        """Returns the receipt of a call that has ended, serialized; the same at each call.

        Most calls of REST need none, so it is made only where it is stored or sent.

        Returns:
            None for a call that ended before its first attempt and before a guard or the cache was asked.
        """
        if self._receipt is None and (self.duration_ms is not None or self.guards or self.cache is not None):
            self._receipt = receipts.receipt(self.attempts, self.cost, self.duration_ms or 0)
            if self.guards or self.cache is not None:
                more = Receipt(cache=self.cache.result if self.cache is not None else None)
                for record in self.guards:
                    record.add_to(more)
                self._receipt += more.SerializeToString()  # joined bytes are the merged message
        return self._receipt

    def receipt(self) -> Receipt | None:
        """Returns the receipt as a message; see `receipt_bytes`."""
        data = self.receipt_bytes()
        return None if data is None else Receipt.FromString(data)


@dataclass(slots=True, eq=False)
class ChatCall:
    """A call and what is known of its answer so far.

    Attributes:
        request: The request.
        caller: The authenticated caller.
        options: What the call sets in addition to the request.
        outcome: What the call returns besides the answer.
        model: The model that the request resolves to.
        lease: What the call holds in the store.
        completion: The answer; empty for a stream, of which `accumulator` has what is needed.
        uses_functions: Whether the request uses `functions` instead of `tools`.
        execution: Runs the attempts; None before the turn has begun.
        shaper: Shapes the chunks of a stream; None before the first chunk.
        accumulator: Collects the chunks of a stream; None if nothing is stored, kept or traced.
        guards: The guards of the call; None without any.
    """

    request: CreateChatCompletionRequest
    caller: Caller
    options: CallOptions
    outcome: CallOutcome
    model: Model
    lease: CallLease
    completion: ChatCompletion | TextCompletion
    uses_functions: bool
    execution: Execution | None = None
    shaper: StreamShaper | None = None
    accumulator: CompletionAccumulator | None = None
    guards: "CallGuards | None" = None

    def record_completion(self, completion: ChatCompletion | TextCompletion, model_id: str) -> None:
        """Records the answer of a call without streaming, given by `model_id`."""
        lease = self.lease
        if lease.admission is not UNLIMITED_CALL:
            lease.admission.record_answer(completion)
        if self.uses_functions and isinstance(completion, ChatCompletion):
            functions.to_functions(completion)
        stamp(completion, model_id, lease.session_id if lease.turn is not None else None)
        self.completion = completion

    def record_cached(self, answer: ChatCompletion) -> None:
        """Records a kept answer, which gets an id, a time and a session of its own. It uses no tokens."""
        stamp(answer, answer.model, self.lease.session_id)
        self.completion = answer

    def cached_call(self) -> "CachedCall":
        """Returns the call as the cache needs it."""
        from parley.core.cache.key import CachedCall

        lease, options = self.lease, self.options
        return CachedCall(
            self.model,
            self.request,
            lease.conversation(self.request),
            self.caller.account,
            options.cache_control,
            options.forwarded,
            lease.turn.session_id if lease.turn else None,
        )

    def shape(self, batch: Batch) -> Batch:
        """Records a batch of the backend and returns the batch for the caller."""
        shaper = self.shaper or self._start_stream()
        admission = self.lease.admission
        if isinstance(batch, PlainText):
            if admission is not UNLIMITED_CALL:
                admission.record_answer(batch)
            if self.accumulator:
                self.accumulator.add(batch)
            return shaper.shape_text(batch)
        for chunk in batch:
            if admission is not UNLIMITED_CALL:
                admission.record_answer(chunk)
            if self.uses_functions:
                functions.to_function_deltas(chunk)
            if self.accumulator:
                self.accumulator.add(chunk)
        return [shaped for chunk in batch for shaped in shaper.shape(chunk)]

    def _start_stream(self) -> StreamShaper:
        assert self.execution is not None  # noqa: S101 - only an execution yields chunks
        completion = ChatCompletion()
        stamp(completion, self.execution.model_id, self.lease.session_id)
        use, cache = self.outcome.cache, self.model.cache
        if self._is_kept:
            self.accumulator = CompletionAccumulator(completion)
        elif use is not None and use.digest is not None and cache is not None:
            self.accumulator = BoundedAccumulator(completion, cache.max_answer * _BYTES_OF_CHUNKS)
        self.shaper = StreamShaper(completion)
        return self.shaper

    @property
    def tokens(self) -> int:
        """The completion tokens so far, estimated from the delivered output."""
        return estimate_tokens(self.execution.delivered_size) if self.execution else 0

    @property
    def _is_kept(self) -> bool:
        """Whether the answer is needed after it was sent: for the store, or for a trace with content."""
        trace = self.options.trace
        return self.lease.is_persisted or (trace is not None and trace.captures_content)

    def accumulated(self) -> ChatCompletion | None:
        """Returns the answer of a stream so far; None if nothing is kept."""
        return self.accumulator.completion() if self.accumulator else None

    def answer(self) -> ChatCompletion:
        """Returns the answer as a message: complete, or of a stream what is kept so far."""
        return self.accumulated() or as_message(self.completion)

    def record_end(self) -> None:
        """Writes the attempts to the outcome, and the answer if the trace captures content."""
        outcome, trace = self.outcome, self.options.trace
        if trace is not None and trace.captures_content:
            outcome.answer = self.answer()
        if self.execution is not None:
            outcome.attempts = attempts = self.execution.attempts
            outcome.cost, outcome.duration_ms = receipts.settle(attempts)
        if self.guards is not None:
            outcome.record_guards(self.guards.records)
        if outcome.cache is not None and outcome.cache.is_hit:
            outcome.cost = 0.0
