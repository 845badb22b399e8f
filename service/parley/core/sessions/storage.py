"""Whether more may be stored. Pure functions.

Each store calls them inside the transaction that stores a turn or a fork, so that the limits hold exactly. The answer
of an admitted turn is always stored: a session or an account may exceed its bytes by the answers of its running turns.
"""

from typing import NamedTuple

from parley.core.errors import StorageLimitExceeded
from parley.core.ports import StorageLimits


class StorageUse(NamedTuple):
    """What an account has stored.

    Attributes:
        sessions: The number of its sessions.
        bytes: The serialized bytes of their messages.
    """

    sessions: int = 0
    bytes: int = 0


def limits_account(limits: StorageLimits) -> bool:
    """Returns whether the account has a limit, so that its use must be read."""
    return limits.sessions is not None or limits.bytes is not None


def fits_session(limits: StorageLimits, stored: int, added: int) -> bool:
    """Returns whether a session with `stored` bytes can receive `added` bytes."""
    return limits.session_bytes is None or stored + added <= limits.session_bytes


def require_session_space(limits: StorageLimits, stored: int, added: int) -> None:
    """Raises StorageLimitExceeded if a session with `stored` bytes cannot receive `added` bytes."""
    if not fits_session(limits, stored, added):
        raise StorageLimitExceeded(
            f"A session may store {limits.session_bytes} bytes: this one has {stored}, and the request adds {added}; "
            "begin a new session",
            subject="session",
            limit="bytes",
            param="chatSessionId",
        )


def require_account_space(limits: StorageLimits, account: str, use: StorageUse, *, sessions: int, added: int) -> None:
    """Raises StorageLimitExceeded if the account cannot receive so many sessions and bytes."""
    if limits.sessions is not None and sessions and use.sessions + sessions > limits.sessions:
        raise _account_full(account, "sessions", f"{limits.sessions} sessions and has {use.sessions}")
    if limits.bytes is not None and use.bytes + added > limits.bytes:
        raise _account_full(account, "bytes", f"{limits.bytes} bytes: it has {use.bytes}, and the request adds {added}")


def _account_full(account: str, limit: str, what: str) -> StorageLimitExceeded:
    message = f"This account may store {what}; delete sessions that are not needed"
    return StorageLimitExceeded(message, subject=f"account:{account}", limit=limit)
