"""The latest messages of a session."""

from collections import deque
from collections.abc import Sequence

from parley.core.ports import SessionStore
from parley.v1.message_pb2 import Message

_PAGE = 1000


async def latest_messages(store: SessionStore, account: str, session_id: str, count: int) -> Sequence[Message]:
    """Returns the latest messages of a session's completed turns, at most `count`, oldest first.

    Raises:
        SessionNotFound: The account has no such session.
        StoreUnavailable: The store cannot be reached.
    """
    latest: deque[Message] = deque(maxlen=count)
    token: str | None = None
    while True:
        page, token = await store.list_messages(account, session_id, page_size=_PAGE, page_token=token)
        latest.extend(item.message for item in page if item.state == "completed")
        if not token:
            return latest
