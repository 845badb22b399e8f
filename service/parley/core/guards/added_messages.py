"""Checks of messages that reach a session without a call of its model."""

from collections.abc import Callable, Sequence

from parley.config import Model
from parley.core.errors import ModelNotFound
from parley.core.guards.model_guards import ModelGuards
from parley.core.guards.records import GuardRecord
from parley.core.ports import Caller, SessionStore
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message


class AddedMessages:
    """Checks the messages that one call adds to sessions: a later turn sends them to the model.

    Args:
        guards: The guards of every model.
        store: The store.
        find_model: Returns the configuration of the model of a session, also after the retirement of an alias that the
            session has; raises ModelNotFound.
        caller: The caller.
        request_id: The id of the call.

    Attributes:
        records: What the guards have decided so far.
    """

    def __init__(
        self,
        guards: ModelGuards,
        store: SessionStore,
        find_model: Callable[[Caller, str], Model],
        caller: Caller,
        request_id: str,
    ) -> None:
        self._guards = guards
        self._store = store
        self._find_model = find_model
        self._caller = caller
        self._request_id = request_id
        self.records: list[GuardRecord] = []

    async def check(self, model_id: str, session_id: str, messages: Sequence[Message]) -> Sequence[Message]:
        """Returns the messages as the guards of the session's model let them pass.

        A session of a model that the configuration does not have cannot be continued; its messages are not checked.

        Raises:
            GuardRefused: A guard refuses the messages.
            GuardUnavailable: A guard failed, and is closed on failure.
        """
        try:
            model = self._find_model(self._caller, model_id)
        except ModelNotFound:
            return messages
        request = CreateChatCompletionRequest(session_id=session_id, messages=messages)
        guards = self._guards.of_call(model, request, self._caller.account, self._request_id, None)
        if guards is None:
            return messages
        try:
            return (await guards.check_request(request, self._store)).messages
        finally:
            self.records += guards.records
