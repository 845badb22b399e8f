"""The one use case: answer a conversation, whole or as a stream, as a turn of its session."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from parley.config import Model
from parley.core.errors import DeadlineExceeded, ParleyError, UnsupportedParameter
from parley.core.messages import functions
from parley.core.offload import note_size
from parley.core.ports import Caller, SessionStore
from parley.core.routing.execution import Run
from parley.core.routing.router import Router
from parley.core.sessions.idempotency import Key
from parley.core.sessions.turns import Held, Turns
from parley.core.streaming.accumulator import AnswerJoiner
from parley.core.streaming.replay import streamed
from parley.core.streaming.shaper import StreamShaper, stamp
from parley.core.usage.limits import UNLIMITED, Admission, Limits, Standing, Told
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.receipt_pb2 import Receipt

_CLOCK_SECONDS = 0.1  # how far the caller's clock and ours may be apart when a deadline passes


def _ignore(*_: object) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a call says beside its request.

    `deadline` is a time of the event loop's clock in seconds, `key` the call's `Idempotency-Key`. `told` is told how
    the caller stands with its limits; `replayed` is called where the key has its answer already, which costs nothing.
    `receipt` is told once what was asked of whom, however the call ended, with why each attempt failed, in words for
    the log.
    """

    deadline: float | None = None
    key: Key | None = None
    told: Told = _ignore
    replayed: Callable[[], None] = _ignore
    receipt: Callable[[Receipt, Sequence[str | None]], None] = _ignore


_PLAIN = Terms()


class Chat:
    """Answers conversations: model, key, limits, session, target, backend, session."""

    def __init__(self, router: Router, turns: Turns, limits: Limits, store: SessionStore) -> None:
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

    async def standings(self, caller: Caller) -> Sequence[Standing]:
        """Tells how a caller stands with its limits. Raises StoreUnavailable."""
        return await self._limits.standings(caller)

    async def complete(
        self,
        request: CreateChatCompletionRequest,
        caller: Caller,
        terms: Terms = _PLAIN,
    ) -> ChatCompletion:
        """Returns the whole answer; where a session or a key keeps it, it is on disk. Raises every ParleyError."""
        model = await self._model(request, caller)
        held, reply = await self._turns.claim(terms.key, request, caller)
        if reply:
            terms.replayed()
            return reply
        progress = _Progress()
        with await self._admit(held, request, caller, model, terms.told) as admission:
            try:
                run = progress.run = await self._begin(held, request, caller, model, terms.deadline)
                admission.goes_on_from(held.earlier(request))
                completion = await run.complete()
                admission.saw(completion)
                if functions.speaks_of_functions(request):
                    functions.to_functions(completion)
                stamp(completion, run.model_id, held.session_id)
            except BaseException as error:
                await self._fail(held, error, request, terms, progress)
                raise
            await self._turns.commit(held, completion, _receipt(run, terms))
        return completion

    async def stream(
        self,
        request: CreateChatCompletionRequest,
        caller: Caller,
        terms: Terms = _PLAIN,
    ) -> AsyncGenerator[list[ChatCompletionChunk], None]:
        """Yields the answer's chunks, those together that came together; the last one, alone, has no choices.

        It comes, and the iterator ends, only when the answer is whole and, where it is kept, on disk. Raises every
        ParleyError. Closing the iterator closes the connection to the backend.
        """
        model = await self._model(request, caller)
        held, reply = await self._turns.claim(terms.key, request, caller)
        if reply:
            terms.replayed()
            for together in streamed(reply):
                yield together
            return
        progress = _Progress()
        shaper: StreamShaper | None = None
        legacy = functions.speaks_of_functions(request)
        answer = ChatCompletion()
        with await self._admit(held, request, caller, model, terms.told) as admission:
            try:
                run = progress.run = await self._begin(held, request, caller, model, terms.deadline)
                admission.goes_on_from(held.earlier(request))
                async with aclosing(run.stream()) as chunks:
                    async for chunk in chunks:
                        if shaper is None:
                            stamp(answer, run.model_id, held.session_id)
                            shaper = StreamShaper(answer)
                            progress.joiner = AnswerJoiner(answer) if held.is_kept else None
                        admission.saw(chunk)
                        if legacy:
                            functions.to_function_deltas(chunk)
                        if progress.joiner:
                            progress.joiner.add(chunk)
                        yield shaper.shape(chunk)
            except BaseException as error:
                await self._fail(held, error, request, terms, progress)
                raise
            await self._turns.commit(held, progress.said() or answer, _receipt(run, terms))
        if shaper:
            yield [shaper.end()]

    async def _model(self, request: CreateChatCompletionRequest, caller: Caller) -> Model:
        """Returns the model that the request names; where it names none, its session's, or the default one."""
        if request.model or not request.HasField("session_id"):
            return self._router.model(caller, request.model)
        session = await self._store.get_session(caller.account, request.session_id)
        return self._router.model(caller, session.model)

    async def _admit(
        self, held: Held, request: CreateChatCompletionRequest, caller: Caller, model: Model, told: Told
    ) -> Admission:
        """Lets the call in, or lets go of what is held."""
        if not self._limits.are_set:
            told(())
            return UNLIMITED
        most = self._router.most_tokens(model, request)
        try:
            held.admission = await self._limits.admit(request, caller, model.instructions or "", most, told)
        except BaseException as error:
            await self._turns.fail(held, self._reason(error, None), None, wait=_is_told(error))
            raise
        return held.admission

    async def _begin(
        self,
        held: Held,
        request: CreateChatCompletionRequest,
        caller: Caller,
        model: Model,
        deadline: float | None,
    ) -> Run:
        await self._turns.begin(held, request, caller, model, deadline)
        conversation = held.conversation(request)
        note_size(messages=len(conversation))
        return self._router.run(
            model, request, conversation, session_id=held.session_id, deadline=deadline, account=caller.account
        )

    async def _fail(
        self,
        held: Held,
        error: BaseException,
        request: CreateChatCompletionRequest,
        terms: Terms,
        progress: "_Progress",
    ) -> None:
        if isinstance(error, UnsupportedParameter) and functions.speaks_of_functions(request):
            functions.use_old_names(error)
        receipt = _receipt(progress.run, terms) if progress.run else None
        reason = self._reason(error, terms.deadline)
        await self._turns.fail(held, reason, progress.said(), receipt, wait=_is_told(error))

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

    run: Run | None = None
    joiner: AnswerJoiner | None = None

    def said(self) -> ChatCompletion | None:
        return self.joiner.completion() if self.joiner else None


def _receipt(run: Run, terms: Terms) -> Receipt:
    """Tells the caller what was asked of whom, and returns it."""
    receipt = run.receipt()
    terms.receipt(receipt, run.causes())
    return receipt


def _is_told(error: BaseException) -> bool:
    """Tells whether the caller is there to hear of it."""
    return isinstance(error, Exception)
