"""Answers a conversation, complete or as a stream, as a turn of its session."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from parley.config import Model
from parley.core.call import CallOptions, CallOutcome, ChatCall
from parley.core.errors import DeadlineExceeded, ParleyError, SessionNotFound, UnsupportedParameter
from parley.core.messages import functions
from parley.core.messages.text_completion import TextCompletion, as_message
from parley.core.offload import LARGE_MESSAGES, record_size
from parley.core.ports import Caller, SessionStore, StorageLimits
from parley.core.ports.plain_text import Batch
from parley.core.routing.execution import Execution
from parley.core.routing.router import Router
from parley.core.session_ids import session_keys
from parley.core.sessions import access
from parley.core.sessions.call_lease import CallLease
from parley.core.sessions.resent_history import may_repeat
from parley.core.sessions.turn_request import is_turn, storage_limits, window
from parley.core.sessions.turns import Turns
from parley.core.streaming.replay import completion_to_chunks
from parley.core.usage.admission import UNLIMITED_CALL
from parley.core.usage.charges import is_limited, needs_history
from parley.core.usage.limits import RateLimiter
from parley.core.usage.recorder import UsageRecorder
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

if TYPE_CHECKING:  # loaded only where caches and guards are configured
    from parley.core.cache.answers import AnswerCache
    from parley.core.guards.model_guards import ModelGuards

_NO_ANSWER = ChatCompletion()
_CANCELLED = asyncio.CancelledError | GeneratorExit
_SETTLE_SECONDS = 1.0
_CLOCK_SKEW_SECONDS = 0.1  # allowed between the clocks of caller and service when a deadline passes


class Chat:
    """Answers conversations: resolves the model, claims the key, admits the call, runs it as a turn of its session.

    Attributes:
        limits: Admits calls.
        has_default_model: Whether a request may leave the model out.
        forwarded_headers: The names of the callers' headers, in lower case, that some backend receives.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a call
        self,
        router: Router,
        turns: Turns,
        limits: RateLimiter,
        store: SessionStore,
        usage: UsageRecorder,
        cache: "AnswerCache | None" = None,
        guards: "ModelGuards | None" = None,
    ) -> None:
        self.guards = guards
        self._router = router
        self._turns = turns
        self.limits = limits
        self._store = store
        self._usage = usage
        self._cache = cache
        self._stopping = False
        self.has_default_model = router.has_default
        self.forwarded_headers = router.forwarded_headers

    def storage_limits(self, caller: Caller) -> StorageLimits:
        """Returns how much the caller may store."""
        return storage_limits(caller, self._turns.session_bytes)

    def stop(self) -> None:
        """Marks the worker as stopping: calls cancelled from now on are recorded as `shutdown`."""
        self._stopping = True

    async def complete(
        self, request: CreateChatCompletionRequest, caller: Caller, options: CallOptions, outcome: CallOutcome
    ) -> ChatCompletion | TextCompletion:
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
        if outcome.replayed:
            return call.completion
        try:
            # The caller learns the id of a new session with the answer.
            execution = await self._begin(call, may_defer=True)
            if call.model.cache is None or not await self._find_cached(call):
                completion = await execution.complete()
                if call.guards is not None:
                    completion = await call.guards.check_answer(completion)
                call.record_completion(completion, execution.model_id)
        except BaseException as error:
            await self._end(call, error)
            raise
        await self._end(call, None)
        if outcome.cache is not None:
            self._keep(call)
        return call.completion

    async def stream(
        self, request: CreateChatCompletionRequest, caller: Caller, options: CallOptions, outcome: CallOutcome
    ) -> AsyncGenerator[Batch, None]:
        """Yields the answer in batches; what arrived together is in one.

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
            for replayed in completion_to_chunks(call.answer()):
                yield replayed
            return
        try:
            execution = await self._begin(call)
            if call.model.cache is None or not await self._find_cached(call):
                batches = execution.stream() if call.guards is None else call.guards.check_stream(execution)
                try:  # as `aclosing`, without its three functions for each stream
                    async for batch in batches:
                        yield call.shape(batch)
                        del batch  # a stream that waits keeps nothing of what it has sent
                finally:
                    await batches.aclose()
        except BaseException as error:
            await self._end(call, error)
            raise
        await self._end(call, None)
        if outcome.cache is not None:
            self._keep(call)
            for cached in completion_to_chunks(call.answer()) if outcome.cache.is_hit else ():
                yield cached
        if call.shaper:
            yield [call.shaper.end()]

    async def _find_cached(self, call: ChatCall) -> bool:
        """Answers a call from the cache of its model. Returns whether it is answered."""
        assert self._cache is not None  # noqa: S101 - a model has a cache
        use = call.outcome.cache = await self._cache.find(call.cached_call())
        if use.answer is None:
            return False
        answer: ChatCompletion | TextCompletion = use.answer
        if call.guards is not None:
            answer = await call.guards.check_answer(answer)
        call.record_cached(as_message(answer))
        return True

    def _keep(self, call: ChatCall) -> None:
        """Keeps the answer of a call for which the cache has a key and no answer."""
        use = call.outcome.cache
        if use is not None and use.digest is not None and self._cache is not None:
            self._cache.keep(use.digest, call.cached_call(), call.answer(), call.outcome.attempts)

    async def _prepare(
        self, request: CreateChatCompletionRequest, caller: Caller, options: CallOptions, outcome: CallOutcome
    ) -> ChatCall:
        """Resolves the model and claims the key. Sets `outcome.replayed` if the key already has its answer.

        The model is the one that the request names; without a name that of its session, or the default model.
        """
        if request.model or not request.HasField("session_id"):
            model = self._router.model(caller, request.model)
        else:
            session = await access.find_session(self._store, caller, request.session_id)
            model = self._router.model(caller, session.model, of_session=True)
        outcome.model_id = model.label
        if model.aliases:
            outcome.retires = self._router.retirement(request.model)
            model = await self._as_in_session(model, request, caller)
        lease, reply = CallLease(), None
        if options.key is not None:
            lease, reply = await self._turns.claim(options.key, request, caller)
        if reply is not None:
            await self._admit_replay(caller, outcome)
        uses_functions = functions.uses_functions(request)
        call = ChatCall(request, caller, options, outcome, model, lease, reply or _NO_ANSWER, uses_functions)
        outcome.running = call
        return call

    async def _as_in_session(self, model: Model, request: CreateChatCompletionRequest, caller: Caller) -> Model:
        """Returns the model under the id that its session was stored with, which may be an alias by now."""
        if not request.HasField("session_id"):
            return model
        try:
            session = await access.find_session(self._store, caller, request.session_id)
        except SessionNotFound:
            return model  # the turn creates it, or fails
        return model.named(session.model) if session.model in model.ids else model

    async def _admit_replay(self, caller: Caller, outcome: CallOutcome) -> None:
        """Charges one request for a stored answer."""
        admission = await self.limits.admit_request(caller)
        outcome.rate_limits = admission.statuses
        admission.require_granted()
        outcome.replayed = True

    async def _begin(self, call: ChatCall, *, may_defer: bool = False) -> Execution:
        """Admits the call, begins its turn and makes its execution. `_end` ends it, also if this fails."""
        if is_limited(call.caller):
            await self._admit(call)
        else:
            call.outcome.rate_limits = ()
        if self.guards is not None:
            await self._guard(call, self.guards)
        lease = call.lease
        conversation: Sequence[Message] = call.request.messages
        if is_turn(call.request, call.model):
            deadline = call.options.deadline
            await self._turns.begin(lease, call.request, call.caller, call.model, deadline, may_defer=may_defer)
            conversation = lease.conversation(call.request)
            if lease.admission is not UNLIMITED_CALL:
                lease.admission.add_history(lease.prior_messages(call.request))
        if len(conversation) >= LARGE_MESSAGES:
            record_size(messages=len(conversation))
        call.execution = self._router.new_execution(
            call.model,
            call.request,
            conversation,
            session_id=lease.session_id,
            deadline=call.options.deadline,
            account=call.caller.account,
            hops=call.options.hops,
            trace=call.options.trace,
            shape=None if call.uses_functions else call.options.shape,
            forwarded=call.options.forwarded,
        )
        return call.execution

    async def _guard(self, call: ChatCall, guards: "ModelGuards") -> None:
        """Has the guards of the model check the request, which they may redact."""
        request, options = call.request, call.options
        call.guards = guards.of_call(call.model, request, call.caller.account, options.request_id, options.deadline)
        if call.guards is not None:
            call.request = await call.guards.check_request(request, self._store)
            call.guards.require_answer_checks()
            if call.request is not request:
                call.options = options._replace(shape=None)

    async def _end(self, call: ChatCall, error: BaseException | None) -> None:
        """Commits the answer, or records why there is none; then settles the limits and counts the usage."""
        admission, failed = call.lease.admission, True
        is_reserved = admission is not UNLIMITED_CALL
        try:
            call.record_end()
            if is_reserved:
                admission.record_cost(call.outcome.cost)
            if error is not None:
                await self._fail(call, error)
            elif call.lease.is_persisted:
                await self._turns.commit(call.lease, call.accumulated() or call.completion, call.outcome.receipt())
            failed = error is not None
        finally:
            self._usage.record(call.caller, call.model.label, call.outcome.attempts, failed=failed)
            settling = admission.settle() if is_reserved else None
            if settling is not None and admission.is_concurrent and not isinstance(error, _CANCELLED):
                # Otherwise the caller's next call could find this one still running.
                await asyncio.wait({settling}, timeout=_SETTLE_SECONDS)

    async def _admit(self, call: ChatCall) -> None:
        caller, request, model = call.caller, call.request, call.model
        history = 0
        if request.session_id and needs_history(caller):
            account, session_id = caller.account, request.session_id
            for key in session_keys(account, session_id):
                history += await self._store.history_tokens(account, key, window(model))
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

    async def _fail(self, call: ChatCall, error: BaseException) -> None:
        """Records the failure. Waits for the write while the caller is connected, because it may retry at once."""
        if isinstance(error, UnsupportedParameter) and call.uses_functions:
            functions.use_function_names(error)
        if isinstance(error, ParleyError) and call.execution is not None:
            call.execution.use_caller_positions(error)
        reason = self._reason(error, call)
        is_connected = isinstance(error, Exception)
        await self._turns.fail(call.lease, reason, call.accumulated(), call.outcome.receipt(), wait=is_connected)

    def _reason(self, error: BaseException, call: ChatCall) -> str:
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
