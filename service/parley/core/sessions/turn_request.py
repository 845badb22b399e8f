"""The turn that a request begins, and whether it begins one."""

from functools import lru_cache

from parley.config import Model
from parley.core.errors import InvalidRequest
from parley.core.messages import ids
from parley.core.ports import Caller, StorageLimits, TurnBegin, Window
from parley.core.session_ids import MAX_LENGTH, is_chosen, is_valid, session_keys
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

_NO_HISTORY = Window()
_limits = lru_cache(256)(StorageLimits)  # most calls have the same


def turn_begin(
    request: CreateChatCompletionRequest, caller: Caller, model: Model, session_bytes: int | None
) -> TurnBegin:
    """Returns the turn that a request begins; without a session id, in a new session.

    Raises:
        InvalidRequest: The request names an id that no session can have, for a model whose callers choose ids.
    """
    account, messages, metadata = caller.account, request.messages, dict(request.metadata) if request.metadata else {}
    storage = storage_limits(caller, session_bytes)
    if not request.HasField("session_id"):
        return TurnBegin(account, model.id, ids.uuid7(), True, messages, _NO_HISTORY, metadata, storage)
    key = _first_key(request.session_id, account, model)
    may_create = is_chosen(key) and chooses_ids(model)
    return TurnBegin(account, model.id, key, False, messages, window(model), metadata, storage, may_create)


def _first_key(session_id: str, account: str, model: Model) -> str:
    """Returns the key that the session probably has in the store."""
    if chooses_ids(model):
        require_valid_id(session_id)
    elif not is_chosen(session_id):
        return session_id
    return session_keys(account, session_id)[0]


def chooses_ids(model: Model) -> bool:
    """Returns whether callers of the model choose the ids of their sessions."""
    return model.sessions.ids == "caller"


def require_valid_id(session_id: str) -> None:
    """Raises InvalidRequest if a caller may not choose the id."""
    if not is_valid(session_id):
        message = f"`chatSessionId` must have 1 to {MAX_LENGTH} printable ASCII characters, and no space at either end"
        raise InvalidRequest(message, param="chatSessionId")


def window(model: Model) -> Window:
    """Returns how much of a session's history the model gets."""
    history = model.history
    return Window(history.max_messages, history.max_tokens, history.load_messages, history.load_bytes)


def storage_limits(caller: Caller, session_bytes: int | None) -> StorageLimits:
    """Returns how much the caller's account may store, with the limit of one session."""
    return _limits(caller.account_limits.sessions, caller.account_limits.bytes, session_bytes)


def is_turn(request: CreateChatCompletionRequest, model: Model) -> bool:
    """Returns whether the call is a turn of a session.

    Raises:
        InvalidRequest: The request contradicts itself or the model's configuration.
    """
    if request.continue_final_message:
        _reject_continuation(request)
        return False
    if request.HasField("session_id"):
        if request.HasField("store") and not request.store:
            raise InvalidRequest("`store` is false, but `chatSessionId` names a session; leave one out", param="store")
        if model.sessions.mode == "off":
            message = f'`chatSessionId` cannot be used: the model "{model.id}" keeps no sessions; leave it out'
            raise InvalidRequest(message, param="chatSessionId")
        return True
    if request.HasField("store"):
        if request.store and model.sessions.mode == "off":
            raise InvalidRequest(f'`store` cannot be true: the model "{model.id}" keeps no sessions', param="store")
        return request.store
    return model.sessions.mode == "auto"


def _reject_continuation(request: CreateChatCompletionRequest) -> None:
    """Raises InvalidRequest if a continuation, which is not a turn of its own, requests a session."""
    for is_requested, name in ((request.HasField("session_id"), "chatSessionId"), (request.store, "store")):
        if is_requested:
            message = f"`{name}` cannot be used with `continue_final_message`, which no session keeps; leave one out"
            raise InvalidRequest(message, param=name)
