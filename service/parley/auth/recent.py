"""What authentication has read from the store a moment ago, and the accounts that its first call creates."""

from typing import Generic, TypeVar

from parley.core.administration import account_audit
from parley.core.ports import Account, AccountStore, Origin

_SECONDS = 0.5  # less than the second within which a change takes effect in all workers
_MAX_ENTRIES = 10_000

K = TypeVar("K")
V = TypeVar("V")


class RecentCache(Generic[K, V]):
    """Keeps values for half a second. A full cache loses its oldest entry."""

    def __init__(self) -> None:
        self._entries: dict[K, tuple[V, float]] = {}

    def get(self, key: K, now: float) -> V | None:
        """Returns a value that was read in the half second before the Unix time `now`; None without one."""
        value, read = self._entries.get(key, (None, 0.0))
        # The lower bound: a clock that is set back must not keep a revoked key or a suspended account.
        return value if 0 <= now - read < _SECONDS else None

    def pop(self, key: K) -> V | None:
        """Removes a value and returns it, however old it is; None without one."""
        return self._entries.pop(key, (None, 0.0))[0]

    def put(self, key: K, value: V, read: float) -> None:
        """Adds a value as the newest entry. `read` is the Unix time before it was read."""
        self._entries.pop(key, None)
        if len(self._entries) >= _MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (value, read)


async def find_or_add(store: AccountStore, account: Account, origin: Origin, now: float) -> Account:
    """Returns the account of this name as stored; adds it if it does not exist. Raises StoreUnavailable."""
    found = await store.find_account(account.name)
    if found is None:
        found, _ = await store.add_account(account, account_audit(origin, "CreateAccount", int(now)))
    return found
