"""The sessions that a caller may use: those of its account, of the models that its key may use."""

from parley.core.errors import SessionNotFound
from parley.core.ports import Caller, SessionFilter, SessionStore
from parley.v1.sessions_pb2 import Session


async def find_session(store: SessionStore, caller: Caller, session_id: str) -> Session:
    """Returns a session of the caller.

    Raises:
        SessionNotFound: The account has no such session, or its key may not use the session's model.
    """
    session = await store.get_session(caller.account, session_id)
    if not caller.may_use(session.model):
        raise SessionNotFound(session_id)
    return session


async def require_session(store: SessionStore, caller: Caller, session_id: str) -> None:
    """Raises SessionNotFound if the key is limited to models and the caller has no such session.

    A session never changes its model, so the check remains true. Keys without the limit need no query: the store
    checks the account itself.
    """
    if caller.models:
        await find_session(store, caller, session_id)


def permitted(caller: Caller, model: str | None, since: int | None, before: int | None) -> SessionFilter:
    """Returns the filter of a list of sessions, narrowed to the models that the key may use.

    Args:
        caller: The caller.
        model: The id of the requested model; None for all.
        since: The earliest time of the latest turn, in Unix seconds.
        before: The end of the time of the latest turn, in Unix seconds.
    """
    models = caller.models or None
    if model is not None:
        models = frozenset({model} if caller.may_use(model) else ())
    return SessionFilter(models, since, before)
