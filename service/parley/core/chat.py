"""The one use case: answer a conversation, whole or as a stream, as a turn of its session."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from parley.config import Model
from parley.core import functions
from parley.core.errors import DeadlineExceeded, ParleyError, UnsupportedParameter
from parley.core.limits import UNLIMITED, Admission, Limits, Standing, Told
from parley.core.ports import Caller, Turn
from parley.core.routing import Router
from parley.core.streams import AnswerJoiner, StreamShaper, stamp
from parley.core.turns import Turns
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import Message


def _ignore(_: Sequence[Standing]) -> None:
    """Tells nobody."""


class Chat:
    """Answers conversations: limits, session, target, backend, session."""

    def __init__(self, router: Router, turns: Turns, limits: Limits) -> None:
        self._router = router
        self._turns = turns
        self._limits = limits

    async def standings(self, caller: Caller) -> Sequence[Standing]:
        """Tells how a caller stands with its limits. Raises StoreUnavailable."""
        return await self._limits.standings(caller)

    async def complete(
        self,
        request: CreateChatCompletionRequest,
        caller: Caller,
        deadline: float | None = None,
        told: Told = _ignore,
    ) -> ChatCompletion:
        """Returns the whole answer; where a session keeps it, it is on disk.

        `deadline` is a time of the event loop's clock in seconds; `told` is told how the caller stands with its limits.
        Raises every ParleyError.
        """
        model = self._router.model(caller, request.model)
        with await self._admit(request, caller, model, told) as admission:
            turn = await self._turns.begin(request, caller, model)
            session_id = turn.session_id if turn else None
            try:
                history = turn.history if turn else []
                admission.goes_on_from(history)
                backend, call = self._router.route(model, request, history, session_id=session_id, deadline=deadline)
                completion = await backend.complete(call)
            except BaseException as error:
                self._fail(turn, error, None, request)
                raise
            admission.saw(completion)
        if functions.speaks_of_functions(request):
            functions.to_functions(completion)
        stamp(completion, model.id, session_id)
        if turn:
            await self._turns.commit(turn, completion.choices[0].message if completion.choices else None)
        return completion

    async def stream(
        self,
        request: CreateChatCompletionRequest,
        caller: Caller,
        deadline: float | None = None,
        told: Told = _ignore,
    ) -> AsyncGenerator[list[ChatCompletionChunk], None]:
        """Yields the answer's chunks, those together that came together; the last one, alone, has no choices.

        It comes, and the iterator ends, only when the answer is whole and, in a session, on disk. Raises every
        ParleyError. Closing the iterator closes the connection to the backend.
        """
        model = self._router.model(caller, request.model)
        with await self._admit(request, caller, model, told) as admission:
            turn = await self._turns.begin(request, caller, model)
            session_id = turn.session_id if turn else None
            answer = AnswerJoiner()
            legacy = functions.speaks_of_functions(request)
            try:
                history = turn.history if turn else []
                admission.goes_on_from(history)
                backend, call = self._router.route(model, request, history, session_id=session_id, deadline=deadline)
                shaper = StreamShaper(model.id, session_id)
                async with aclosing(backend.stream(call)) as chunks:
                    async for chunk in chunks:
                        admission.saw(chunk)
                        if legacy:
                            functions.to_function_deltas(chunk)
                        if turn:
                            answer.add(chunk)
                        yield shaper.shape(chunk)
            except BaseException as error:
                self._fail(turn, error, answer.message(), request)
                raise
        if turn:
            await self._turns.commit(turn, answer.message())
        yield [shaper.end()]

    async def _admit(self, request: CreateChatCompletionRequest, caller: Caller, model: Model, told: Told) -> Admission:
        if not self._limits.are_set:
            told(())
            return UNLIMITED
        most = self._router.most_tokens(model, request)
        return await self._limits.admit(request, caller, model.instructions or "", most, told)

    def _fail(
        self,
        turn: Turn | None,
        error: BaseException,
        partial: Message | None,
        request: CreateChatCompletionRequest,
    ) -> None:
        if isinstance(error, UnsupportedParameter) and functions.speaks_of_functions(request):
            functions.use_old_names(error)
        if turn:
            self._turns.abandon(turn, _reason(error), partial)


def _reason(error: BaseException) -> str:
    """Says in a word why a turn stays incomplete."""
    if isinstance(error, DeadlineExceeded):
        return "deadline"
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return "failed" if isinstance(error, ParleyError) else "internal"
