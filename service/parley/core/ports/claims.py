"""The interface of a store of idempotency keys."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Claim:
    """An `Idempotency-Key` in use.

    Attributes:
        account: The account that the key belongs to.
        method: The name of the RPC method that the key is used for.
        key: The key.
        fence: The fencing token of the claim, which increases with every new claim of the key.
    """

    account: str
    method: str
    key: str
    fence: int


class ClaimStore(Protocol):
    """Stores idempotency keys and their replies. Every method raises StoreUnavailable if the store is unreachable."""

    async def claim(self, account: str, method: str, key: str, digest: bytes, lease_seconds: float) -> Claim | bytes:
        """Claims an idempotency key.

        Args:
            account: The account of the caller.
            method: The name of the RPC method.
            key: The idempotency key.
            digest: The SHA-256 of the request.
            lease_seconds: The duration of the lease.

        Returns:
            The claim, or the stored reply of a completed call.

        Raises:
            KeyInUse: Another call holds the key.
            KeyReused: The key was used with a different request.
            ReplyDeleted: The reply was deleted with its session.
        """
        ...

    async def end_claim(self, claim: Claim, reply: bytes | None) -> None:
        """Stores the reply of a call without a session, or releases the key if `reply` is None.

        Raises:
            TurnLost: The claim is no longer held.
        """
        ...
