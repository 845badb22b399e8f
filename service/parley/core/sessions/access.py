"""The sessions that a caller may use: those of its account, of the models that its key may use."""

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import TypeVar

from parley.core.errors import SessionNotFound
from parley.core.ports import Caller, SessionFilter, SessionStore
from parley.core.session_ids import session_keys
from parley.v1.sessions_pb2 import Session

T = TypeVar("T")


async def at_key(account: str, session_id: str, work: Callable[[str], Awaitable[T]]) -> T:
    """Runs `work` with the key that a session has in the store.

    Args:
        account: The account that owns the session.
        session_id: The id that the caller has sent.
        work: Raises SessionNotFound if the account has no session with the key, before it has an effect.
    """
    *others, last = session_keys(account, session_id)
    for key in others:
        with suppress(SessionNotFound):
            return await work(key)
    return await work(last)


async def find_key(store: SessionStore, account: str, session_id: str) -> str:
    """Returns the key that a session has in the store; one of them if the account has no such session."""
    keys = session_keys(account, session_id)
    for key in keys[:-1]:
        with suppress(SessionNotFound):
            await store.get_session(account, key)
            return key
    return keys[-1]


async def find_session(store: SessionStore, caller: Caller, session_id: str) -> Session:
    """Returns a session of the caller.

    Raises:
        SessionNotFound: The account has no such session, or its key may not use the session's model.
    """
    session = await at_key(caller.account, session_id, lambda key: store.get_session(caller.account, key))
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


def permitted(caller: Caller, ids: Collection[str] | None, since: int | None, before: int | None) -> SessionFilter:
    """Returns the filter of a list of sessions, narrowed to the models that the key may use.

    Args:
        caller: The caller.
        ids: The ids of the requested model; None for all models.
        since: The earliest time of the latest turn, in Unix seconds.
        before: The end of the time of the latest turn, in Unix seconds.
    """
    models = caller.models or None
    if ids is not None:
        models = frozenset(filter(caller.may_use, ids))
    return SessionFilter(models, since, before)
