"""The latest messages of a session, which a guard receives for context."""

from collections import deque
from collections.abc import Sequence

from parley.core.errors import SessionNotFound
from parley.core.ports import SessionStore
from parley.core.sessions.access import find_key
from parley.v1.message_pb2 import Message

_PAGE = 1000


async def latest_messages(store: SessionStore, account: str, session_id: str, count: int) -> Sequence[Message]:
    """Returns the latest messages of a session's completed turns, at most `count`, oldest first.

    Returns none if the account has no such session: the call itself fails then, or begins a session with this id.

    Raises:
        StoreUnavailable: The store cannot be reached.
    """
    key = await find_key(store, account, session_id)
    latest: deque[Message] = deque(maxlen=count)
    token: str | None = None
    while True:
        try:
            page, token = await store.list_messages(account, key, page_size=_PAGE, page_token=token)
        except SessionNotFound:
            return ()
        latest.extend(item.message for item in page if item.state == "completed")
        if not token:
            return latest
