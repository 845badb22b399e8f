"""Finds running calls whose caller has lost access since they began."""

import time
from collections.abc import Callable, Mapping

from parley.auth.api_keys import secret_of, valid_until
from parley.auth.callers import Callers
from parley.core.administration.secrets import digest
from parley.core.errors import AccessRevoked, AccountSuspended, ParleyError
from parley.core.ports import ApiKey, Caller, Credentials, KeyReader


class AccessChecker:
    """Implements `parley.core.ports.AccessChecker`.

    Args:
        store: Holds keys and accounts.
        callers: Applies the plans.
        clock: Returns Unix seconds.
    """

    def __init__(self, store: KeyReader, callers: Callers, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._callers = callers
        self._clock = clock

    async def find_revoked(self, running: Mapping[Credentials, Caller]) -> dict[Credentials, ParleyError]:
        """Reads the keys, or else the accounts, of running calls: one query for each of the two.

        Returns:
            Why a new call would be refused, by the credentials for which it would be.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        digests = {one: sent for one in running if (sent := _digest(one)) is not None}
        names = {caller.account for one, caller in running.items() if one not in digests}
        keys = await self._store.find_keys(set(digests.values())) if digests else []
        accounts = await self._store.find_accounts(names) if names else []
        by_digest = {known: key for key in keys for known in (key.digest, key.previous_digest)}
        suspended = {account.name for account in accounts if account.suspended is not None}
        found = {one: self._key_error(by_digest.get(sent), sent) for one, sent in digests.items()}
        found |= {
            one: AccountSuspended()
            for one, caller in running.items()
            if one not in digests and caller.account in suspended
        }
        return {one: error for one, error in found.items() if error is not None}

    def _key_error(self, key: ApiKey | None, sent: bytes) -> ParleyError | None:
        if key is None or self._clock() >= valid_until(key, sent):
            return AccessRevoked()
        try:
            self._callers.caller(key.account, key.id)
        except ParleyError as error:
            return error
        return None


def _digest(credentials: Credentials) -> bytes | None:
    """Returns the digest of an API key; None for other credentials."""
    try:
        return digest(secret_of(credentials.authorization))
    except ParleyError:
        return None
