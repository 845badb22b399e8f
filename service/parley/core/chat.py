"""Answers a conversation, complete or as a stream, as a turn of its session."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from parley.config import Model
from parley.core.errors import DeadlineExceeded, ParleyError, UnsupportedParameter
from parley.core.messages import functions
from parley.core.offload import record_size
from parley.core.ports import Caller, SessionStore, StorageLimits
from parley.core.routing.execution import Execution
from parley.core.routing.router import Router
from parley.core.sessions import access
from parley.core.sessions.idempotency import Key
from parley.core.sessions.resent_history import may_repeat
from parley.core.sessions.turn_request import storage_limits, window
from parley.core.sessions.turns import CallLease, Turns
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.core.streaming.replay import completion_to_chunks
from parley.core.streaming.shaper import StreamShaper, stamp
from parley.core.usage.admission import RateLimitStatus
from parley.core.usage.charges import is_limited, needs_history
from parley.core.usage.limits import RateLimiter
from parley.core.usage.recorder import UsageRecorder
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.receipt_pb2 import Receipt

_CANCELLED = asyncio.CancelledError | GeneratorExit
_SETTLE_SECONDS = 1.0
_CLOCK_SKEW_SECONDS = 0.1  # allowed between the clocks of caller and service when a deadline passes


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What a call sets in addition to its request.

    Attributes:
        deadline: When the caller gives up, in seconds of the event loop's clock; None without a deadline.
        key: The `Idempotency-Key`; None for a call without one.
        hops: The number of Parleys that the call has passed through before this one.
    """

    deadline: float | None = None
    key: Key | None = None
    hops: int = 0


@dataclass(slots=True, eq=False)
class CallOutcome:
    """What a call returns in addition to its answer. Filled in while the call runs, and also when it fails.

    Attributes:
        rate_limits: The caller's limits, set when the call is admitted or rejected, before the first chunk of a
            stream; None until then. Empty without configured limits.
        replayed: Whether the answer is the stored one of the `Idempotency-Key`. It costs nothing.
        receipt: The attempts and their cost, set when the call ends; None if it ends before the routing.
        failure_causes: For each attempt of the receipt the cause of its failure. For the log only.
        is_access_revoked: Whether the call was cancelled because its caller has lost access.
    """

    rate_limits: Sequence[RateLimitStatus] | None = None
    replayed: bool = False
    receipt: Receipt | None = None
    failure_causes: Sequence[str | None] = ()
    is_access_revoked: bool = False


class Chat:
    """Answers conversations: resolves the model, claims the key, admits the call, runs it as a turn of its session.

    Attributes:
        limits: Admits calls.
    """

    def __init__(
        self, router: Router, turns: Turns, limits: RateLimiter, store: SessionStore, usage: UsageRecorder
    ) -> None:
        self._router = router
        self._turns = turns
        self.limits = limits
        self._store = store
        self._usage = usage
        self._stopping = False

    @property
    def has_default_model(self) -> bool:
        """Whether a request may leave the model out."""
        return self._router.has_default

    def storage_limits(self, caller: Caller) -> StorageLimits:
        """Returns how much the caller may store."""
        return storage_limits(caller, self._turns.session_bytes)

    def stop(self) -> None:
        """Marks the worker as stopping: calls cancelled from now on are recorded as `shutdown`."""
        self._stopping = True

    async def complete(
        self, request: CreateChatCompletionRequest, caller: Caller, options: CallOptions, outcome: CallOutcome
    ) -> ChatCompletion:
        """Returns the answer; if a session or a key stores it, after it is on disk.

        Args:
            request: The validated request.
            caller: The authenticated caller.
            options: What the call sets in addition to the request.
            outcome: Filled in while the call runs.

        Raises:
            ParleyError: Any subclass.
        """
        call = await self._prepare(request, caller, options, outcome)
        if not outcome.replayed:
            async with self._running(call) as execution:
                call.record_completion(await execution.complete(), execution.model_id)
        return call.completion

    async def stream(
        self, request: CreateChatCompletionRequest, caller: Caller, options: CallOptions, outcome: CallOutcome
    ) -> AsyncGenerator[list[ChatCompletionChunk], None]:
        """Yields the chunks of the answer, in one batch those that arrived together.

        The last batch is one chunk without choices. It is yielded only after the answer is complete and, if it is
        stored, on disk. Closing the iterator closes the connection to the backend.

        Args:
            request: The validated request.
            caller: The authenticated caller.
            options: What the call sets in addition to the request.
            outcome: Filled in while the call runs.

        Raises:
            ParleyError: Any subclass.
        """
        call = await self._prepare(request, caller, options, outcome)
        if outcome.replayed:
            for batch in completion_to_chunks(call.completion):
                yield batch
            return
        async with self._running(call) as execution, aclosing(execution.stream()) as chunks:
            async for chunk in chunks:
                yield call.shape(chunk)
        if call.shaper:
            yield [call.shaper.end()]

    async def _prepare(
        self, request: CreateChatCompletionRequest, caller: Caller, options: CallOptions, outcome: CallOutcome
    ) -> "_Call":
        """Resolves the model and claims the key. Sets `outcome.replayed` if the key already has its answer."""
        model = await self._model(request, caller)
        lease, reply = await self._turns.claim(options.key, request, caller)
        if reply is not None:
            await self._admit_replay(caller, outcome)
        uses_functions = functions.uses_functions(request)
        return _Call(request, caller, options, outcome, model, lease, reply or ChatCompletion(), uses_functions)

    async def _admit_replay(self, caller: Caller, outcome: CallOutcome) -> None:
        """Charges one request for a stored answer."""
        admission = await self.limits.admit_request(caller)
        outcome.rate_limits = admission.statuses
        admission.require_granted()
        outcome.replayed = True

    async def _model(self, request: CreateChatCompletionRequest, caller: Caller) -> Model:
        """Returns the model that the request names; without a name that of its session, or the default model."""
        if request.model or not request.HasField("session_id"):
            return self._router.model(caller, request.model)
        session = await access.find_session(self._store, caller, request.session_id)
        return self._router.model(caller, session.model)

    @asynccontextmanager
    async def _running(self, call: "_Call") -> AsyncIterator[Execution]:
        """Begins the call and ends it, also if beginning fails."""
        try:
            call.execution = await self._begin(call)
            yield call.execution
        except BaseException as error:
            await self._end(call, error)
            raise
        await self._end(call, None)

    async def _begin(self, call: "_Call") -> Execution:
        """Admits the call, begins its turn and makes its execution."""
        await self._admit(call)
        await self._turns.begin(call.lease, call.request, call.caller, call.model, call.options.deadline)
        conversation = call.lease.conversation(call.request)
        record_size(messages=len(conversation))
        call.lease.admission.add_history(call.lease.prior_messages(call.request))
        return self._router.new_execution(
            call.model,
            call.request,
            conversation,
            session_id=call.lease.session_id,
            deadline=call.options.deadline,
            account=call.caller.account,
            hops=call.options.hops,
        )

    async def _end(self, call: "_Call", error: BaseException | None) -> None:
        """Commits the answer, or records why there is none; then settles the limits and counts the usage."""
        admission, failed = call.lease.admission, True
        try:
            call.record_receipt()
            admission.record_receipt(call.outcome.receipt)
            if error is None:
                await self._turns.commit(call.lease, call.accumulated() or call.completion, call.outcome.receipt)
                failed = False
            else:
                await self._fail(call, error)
        finally:
            self._usage.record(call.caller, call.model.id, call.outcome.receipt, failed=failed)
            settling = admission.settle()
            if settling is not None and admission.is_concurrent and not isinstance(error, _CANCELLED):
                # Otherwise the caller's next call could find this one still running.
                await asyncio.wait({settling}, timeout=_SETTLE_SECONDS)

    async def _admit(self, call: "_Call") -> None:
        caller, request, model = call.caller, call.request, call.model
        if not is_limited(caller):
            call.outcome.rate_limits = ()
            return
        history = 0
        if request.session_id and needs_history(caller):
            history = await self._store.history_tokens(caller.account, request.session_id, window(model))
        admission = await self.limits.admit(
            request,
            caller,
            instructions=model.instructions or "",
            max_tokens=self._router.max_tokens(model, request),
            history=history,
            may_repeat=history > 0 and may_repeat(request.messages),
            price=self._router.highest_price(model),
        )
        call.outcome.rate_limits = admission.statuses
        admission.require_granted()
        call.lease.admission = admission

    async def _fail(self, call: "_Call", error: BaseException) -> None:
        """Records the failure. Waits for the write while the caller is connected, because it may retry at once."""
        if isinstance(error, UnsupportedParameter) and call.uses_functions:
            functions.use_function_names(error)
        reason = self._reason(error, call)
        is_connected = isinstance(error, Exception)
        await self._turns.fail(call.lease, reason, call.accumulated(), call.outcome.receipt, wait=is_connected)

    def _reason(self, error: BaseException, call: "_Call") -> str:
        """Returns the reason that an incomplete turn is stored with."""
        deadline = call.options.deadline
        if isinstance(error, _CANCELLED):
            if self._stopping:
                return "shutdown"
            if call.outcome.is_access_revoked:
                return "access_revoked"
            now = asyncio.get_running_loop().time()
            return "cancelled" if deadline is None or now < deadline - _CLOCK_SKEW_SECONDS else "deadline"
        if isinstance(error, DeadlineExceeded):
            return "deadline"
        return "failed" if isinstance(error, ParleyError) else "internal"


@dataclass(slots=True, eq=False)
class _Call:
    """A call and what is known of its answer so far.

    Attributes:
        request: The request.
        caller: The authenticated caller.
        options: What the call sets in addition to the request.
        outcome: What the call returns besides the answer.
        model: The model that the request resolves to.
        lease: What the call holds in the store.
        completion: The answer; of a stream only its stamp (id, time, model, session).
        uses_functions: Whether the request uses `functions` instead of `tools`.
        execution: Runs the attempts; None before the turn has begun.
        shaper: Shapes the chunks of a stream; None before the first chunk.
        accumulator: Collects the chunks of a stream; None if nothing is stored.
    """

    request: CreateChatCompletionRequest
    caller: Caller
    options: CallOptions
    outcome: CallOutcome
    model: Model
    lease: CallLease
    completion: ChatCompletion
    uses_functions: bool
    execution: Execution | None = None
    shaper: StreamShaper | None = None
    accumulator: CompletionAccumulator | None = None

    def record_completion(self, completion: ChatCompletion, model_id: str) -> None:
        """Records the answer of a call without streaming, given by `model_id`."""
        self.lease.admission.record_answer(completion)
        if self.uses_functions:
            functions.to_functions(completion)
        stamp(completion, model_id, self.lease.session_id)
        self.completion = completion

    def shape(self, chunk: ChatCompletionChunk) -> list[ChatCompletionChunk]:
        """Records a chunk of the backend and returns the chunks for the caller."""
        shaper = self.shaper or self._start_stream()
        self.lease.admission.record_answer(chunk)
        if self.uses_functions:
            functions.to_function_deltas(chunk)
        if self.accumulator:
            self.accumulator.add(chunk)
        return shaper.shape(chunk)

    def _start_stream(self) -> StreamShaper:
        assert self.execution is not None  # noqa: S101 - only an execution yields chunks
        stamp(self.completion, self.execution.model_id, self.lease.session_id)
        self.accumulator = CompletionAccumulator(self.completion) if self.lease.is_persisted else None
        self.shaper = StreamShaper(self.completion)
        return self.shaper

    def accumulated(self) -> ChatCompletion | None:
        """Returns the answer of a stream so far; None if nothing is stored."""
        return self.accumulator.completion() if self.accumulator else None

    def record_receipt(self) -> None:
        """Writes the attempts to the outcome."""
        if self.execution:
            self.outcome.receipt = self.execution.receipt()
            self.outcome.failure_causes = self.execution.failure_causes()
