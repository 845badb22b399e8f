"""The one use case: answer a conversation, whole or as a stream, as a turn of its session."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from parley.config import Model
from parley.core.errors import DeadlineExceeded, ParleyError, UnsupportedParameter
from parley.core.messages import functions
from parley.core.offload import record_size
from parley.core.ports import Caller, SessionStore
from parley.core.routing.execution import Execution
from parley.core.routing.router import Router
from parley.core.sessions.idempotency import Key
from parley.core.sessions.turns import CallLease, Turns
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.core.streaming.replay import completion_to_chunks
from parley.core.streaming.shaper import StreamShaper, stamp
from parley.core.usage.limits import UNLIMITED, Admission, OnRateLimit, RateLimiter, RateLimitStatus
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.receipt_pb2 import Receipt

_CLOCK_SECONDS = 0.1  # how far the caller's clock and ours may be apart when a deadline passes


def _ignore(*_: object) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What a call says beside its request.

    `deadline` is a time of the event loop's clock in seconds, `key` the call's `Idempotency-Key`. `on_rate_limit` is
    told how the caller stands with its limits; `on_replay` is called where the key has its answer already, which costs
    nothing. `on_receipt` is told once what was asked of whom, however the call ended, with why each attempt failed, in
    words for the log.
    """

    deadline: float | None = None
    key: Key | None = None
    on_rate_limit: OnRateLimit = _ignore
    on_replay: Callable[[], None] = _ignore
    on_receipt: Callable[[Receipt, Sequence[str | None]], None] = _ignore


_DEFAULT_OPTIONS = CallOptions()


class Chat:
    """Answers conversations: model, key, limits, session, target, backend, session."""

    def __init__(self, router: Router, turns: Turns, limits: RateLimiter, store: SessionStore) -> None:
        self._router = router
        self._turns = turns
        self._limits = limits
        self._store = store
        self._stopping = False

    @property
    def has_default_model(self) -> bool:
        """Whether a request may leave the model out."""
        return self._router.has_default

    def stop(self) -> None:
        """Says that what is cancelled from now on is so because this worker stops."""
        self._stopping = True

    async def rate_limit_statuses(self, caller: Caller) -> Sequence[RateLimitStatus]:
        """Tells how a caller stands with its limits. Raises StoreUnavailable."""
        return await self._limits.statuses(caller)

    async def complete(
        self,
        request: CreateChatCompletionRequest,
        caller: Caller,
        options: CallOptions = _DEFAULT_OPTIONS,
    ) -> ChatCompletion:
        """Returns the whole answer; where a session or a key keeps it, it is on disk. Raises every ParleyError."""
        model = await self._model(request, caller)
        lease, reply = await self._turns.claim(options.key, request, caller)
        if reply:
            options.on_replay()
            return reply
        progress = _Progress()
        with await self._admit(lease, request, caller, model, options.on_rate_limit) as admission:
            try:
                execution = progress.execution = await self._begin(lease, request, caller, model, options.deadline)
                admission.add_history(lease.prior_messages(request))
                completion = await execution.complete()
                admission.record_answer(completion)
                if functions.uses_functions(request):
                    functions.to_functions(completion)
                stamp(completion, execution.model_id, lease.session_id)
            except BaseException as error:
                await self._fail(lease, error, request, options, progress)
                raise
            await self._turns.commit(lease, completion, _report_receipt(execution, options))
        return completion

    async def stream(
        self,
        request: CreateChatCompletionRequest,
        caller: Caller,
        options: CallOptions = _DEFAULT_OPTIONS,
    ) -> AsyncGenerator[list[ChatCompletionChunk], None]:
        """Yields the answer's chunks, those together that came together; the last one, alone, has no choices.

        It comes, and the iterator ends, only when the answer is whole and, where it is kept, on disk. Raises every
        ParleyError. Closing the iterator closes the connection to the backend.
        """
        model = await self._model(request, caller)
        lease, reply = await self._turns.claim(options.key, request, caller)
        if reply:
            options.on_replay()
            for batch in completion_to_chunks(reply):
                yield batch
            return
        progress = _Progress()
        shaper: StreamShaper | None = None
        legacy = functions.uses_functions(request)
        answer = ChatCompletion()
        with await self._admit(lease, request, caller, model, options.on_rate_limit) as admission:
            try:
                execution = progress.execution = await self._begin(lease, request, caller, model, options.deadline)
                admission.add_history(lease.prior_messages(request))
                async with aclosing(execution.stream()) as chunks:
                    async for chunk in chunks:
                        if shaper is None:
                            stamp(answer, execution.model_id, lease.session_id)
                            shaper = StreamShaper(answer)
                            progress.accumulator = CompletionAccumulator(answer) if lease.is_persisted else None
                        admission.record_answer(chunk)
                        if legacy:
                            functions.to_function_deltas(chunk)
                        if progress.accumulator:
                            progress.accumulator.add(chunk)
                        yield shaper.shape(chunk)
            except BaseException as error:
                await self._fail(lease, error, request, options, progress)
                raise
            await self._turns.commit(lease, progress.partial() or answer, _report_receipt(execution, options))
        if shaper:
            yield [shaper.end()]

    async def _model(self, request: CreateChatCompletionRequest, caller: Caller) -> Model:
        """Returns the model that the request names; where it names none, its session's, or the default one."""
        if request.model or not request.HasField("session_id"):
            return self._router.model(caller, request.model)
        session = await self._store.get_session(caller.account, request.session_id)
        return self._router.model(caller, session.model)

    async def _admit(
        self,
        lease: CallLease,
        request: CreateChatCompletionRequest,
        caller: Caller,
        model: Model,
        on_rate_limit: OnRateLimit,
    ) -> Admission:
        """Lets the call in, or lets go of what is held."""
        if not self._limits.enabled:
            on_rate_limit(())
            return UNLIMITED
        max_tokens = self._router.max_tokens(model, request)
        try:
            lease.admission = await self._limits.admit(
                request, caller, model.instructions or "", max_tokens, on_rate_limit
            )
        except BaseException as error:
            await self._turns.fail(lease, self._reason(error, None), None, wait=_caller_is_present(error))
            raise
        return lease.admission

    async def _begin(
        self,
        lease: CallLease,
        request: CreateChatCompletionRequest,
        caller: Caller,
        model: Model,
        deadline: float | None,
    ) -> Execution:
        await self._turns.begin(lease, request, caller, model, deadline)
        conversation = lease.conversation(request)
        record_size(messages=len(conversation))
        return self._router.new_execution(
            model, request, conversation, session_id=lease.session_id, deadline=deadline, account=caller.account
        )

    async def _fail(
        self,
        lease: CallLease,
        error: BaseException,
        request: CreateChatCompletionRequest,
        options: CallOptions,
        progress: "_Progress",
    ) -> None:
        if isinstance(error, UnsupportedParameter) and functions.uses_functions(request):
            functions.use_function_names(error)
        receipt = _report_receipt(progress.execution, options) if progress.execution else None
        reason = self._reason(error, options.deadline)
        await self._turns.fail(lease, reason, progress.partial(), receipt, wait=_caller_is_present(error))

    def _reason(self, error: BaseException, deadline: float | None) -> str:
        """Says in a word why a turn stays incomplete."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            if self._stopping:
                return "shutdown"
            now = asyncio.get_running_loop().time()
            return "cancelled" if deadline is None or now < deadline - _CLOCK_SECONDS else "deadline"
        if isinstance(error, DeadlineExceeded):
            return "deadline"
        return "failed" if isinstance(error, ParleyError) else "internal"


@dataclass(slots=True)
class _Progress:
    """How far a call came: who was asked, and what a stream said, where it is kept."""

    execution: Execution | None = None
    accumulator: CompletionAccumulator | None = None

    def partial(self) -> ChatCompletion | None:
        return self.accumulator.completion() if self.accumulator else None


def _report_receipt(execution: Execution, options: CallOptions) -> Receipt:
    """Tells the caller what was asked of whom, and returns it."""
    receipt = execution.receipt()
    options.on_receipt(receipt, execution.failure_causes())
    return receipt


def _caller_is_present(error: BaseException) -> bool:
    """Tells whether the caller is there to hear of it."""
    return isinstance(error, Exception)
