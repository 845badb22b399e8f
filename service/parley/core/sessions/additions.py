"""Messages that are added to a session without asking a model."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from parley.config import Model
from parley.core.errors import ModelNotFound, SessionNotFound, SessionOfOtherModel
from parley.core.ports import Caller, Claim, StorageLimits, Store, TurnBegin, TurnEnd, Window
from parley.core.session_ids import chosen_key, public_id
from parley.core.sessions.access import find_key, find_session
from parley.core.sessions.idempotency import LEASE_SECONDS
from parley.core.sessions.turn_request import chooses_ids, require_valid_id
from parley.v1.message_pb2 import Message
from parley.v1.sessions_pb2 import AddSessionMessagesRequest, AddSessionMessagesResponse

CheckMessages = Callable[[str, str, Sequence[Message]], Awaitable[Sequence[Message]]]
"""Checks messages for a model and a session, by their ids; returns what may be stored. Raises ParleyError."""

_NO_HISTORY = Window(max_messages=0)


@dataclass(frozen=True, slots=True)
class _Place:
    """The session that gets the messages: its key in the store, its model, and whether it may be new."""

    key: str
    model: str
    may_create: bool = False


class Additions:
    """Adds messages as turns that begin and end at once. Cancelling the caller does not stop a write.

    Args:
        store: The store.
        find_model: Returns the configuration of a model that the caller may use; raises ModelNotFound.
    """

    def __init__(self, store: Store, find_model: Callable[[Caller, str], Model]) -> None:
        self._store = store
        self._find_model = find_model
        self._running: set[asyncio.Task[AddSessionMessagesResponse]] = set()

    async def add(
        self,
        request: AddSessionMessagesRequest,
        caller: Caller,
        storage: StorageLimits,
        claim: Claim | None,
        check: CheckMessages | None = None,
    ) -> AddSessionMessagesResponse:
        """Adds the messages of a valid request.

        Args:
            request: The request.
            caller: The caller, whose account owns the session.
            storage: Limits what is stored.
            claim: Stores the answer as its reply, in the transaction that ends the turn.
            check: Checks the messages; None if no guard does.

        Raises:
            SessionNotFound: The account has no such session, and the request may not create it.
            SessionOfOtherModel: The session belongs to another model than the request names.
            SessionBusy: Another turn holds the session.
            ModelNotFound: The model of a new session is unknown.
            StorageLimitExceeded: The messages exceed a limit.
            GuardRefused: A guard refuses the messages.
            GuardUnavailable: A guard failed, and is closed on failure.
        """
        task = asyncio.create_task(self._add(request, caller, storage, claim, check))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _add(
        self,
        request: AddSessionMessagesRequest,
        caller: Caller,
        storage: StorageLimits,
        claim: Claim | None,
        check: CheckMessages | None,
    ) -> AddSessionMessagesResponse:
        place = await self._place(request, caller)
        messages: Sequence[Message] = request.messages
        if check is not None:
            messages = await check(place.model, request.session_id, messages)
        begin = TurnBegin(
            caller.account,
            place.model,
            place.key,
            new=False,
            messages=messages,
            window=_NO_HISTORY,
            metadata=dict(request.metadata),
            storage=storage,
            may_create=place.may_create,
            append=True,
        )
        try:
            turn = await self._store.begin_turn(begin, LEASE_SECONDS)
        except SessionOfOtherModel as error:
            if caller.may_use(error.session_model):
                raise
            raise SessionNotFound(request.session_id) from None
        answer = AddSessionMessagesResponse(
            session_id=public_id(place.key), object="chat.session.messages", turn=turn.number
        )
        await self._store.end_turn(turn, TurnEnd("completed", claim=claim, reply=answer.SerializeToString()))
        return answer

    async def _place(self, request: AddSessionMessagesRequest, caller: Caller) -> _Place:
        try:
            session = await find_session(self._store, caller, request.session_id)
        except SessionNotFound:
            if not request.model:
                raise
            return self._new_place(request, caller)
        if request.model and not self._has_id(caller, request.model, session.model):
            raise SessionOfOtherModel(request.session_id, session.model)
        return _Place(await find_key(self._store, caller.account, request.session_id), session.model)

    def _has_id(self, caller: Caller, requested: str, model_id: str) -> bool:
        """Returns whether a requested id and that of a session are those of one model."""
        if requested == model_id:
            return True
        try:
            return model_id in self._find_model(caller, requested).ids
        except ModelNotFound:
            return False

    def _new_place(self, request: AddSessionMessagesRequest, caller: Caller) -> _Place:
        """Returns the place of a new session. Raises SessionNotFound if callers of the model do not choose ids."""
        model = self._find_model(caller, request.model)
        if not chooses_ids(model) or model.sessions.mode == "off":
            raise SessionNotFound(request.session_id)
        require_valid_id(request.session_id)
        return _Place(chosen_key(caller.account, request.session_id), model.id, may_create=True)
