"""The latest messages of a session, which a guard receives for context."""

from collections.abc import Sequence

from parley.core.ports import SessionStore
from parley.core.session_ids import session_keys
from parley.v1.message_pb2 import Message

_MAX_BYTES = 1024 * 1024


async def latest_messages(store: SessionStore, account: str, session_id: str, count: int) -> Sequence[Message]:
    """Returns the latest messages of a session's completed turns, at most `count` and 1 MiB, oldest first.

    Returns none if the account has no such session: the call itself fails then, or begins a session with this id.

    Raises:
        StoreUnavailable: The store cannot be reached.
    """
    for key in session_keys(account, session_id):
        if found := await store.latest_messages(account, key, count, _MAX_BYTES):
            return found
    return ()
