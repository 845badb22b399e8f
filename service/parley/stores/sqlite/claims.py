"""Idempotency keys in SQL: each function is a job of the writer, or part of one."""

from collections.abc import Sequence

import apsw

from parley.core.errors import KeyInUse, KeyReused, ReplyDeleted, TurnLost
from parley.core.ports import Claim
from parley.stores.sqlite.clock import Times
from parley.stores.sqlite.rows import rows

_FIND = """
SELECT digest, lease_expires, iif(
  EXISTS (SELECT 1 FROM sessions WHERE id = claims.session_id AND deleted IS NOT NULL), NULL, reply
)
FROM claims WHERE account = ? AND method = ? AND key = ?
"""
_DELETE = "DELETE FROM claims WHERE account = ? AND method = ? AND key = ?"
_CLAIM = """
INSERT INTO claims (account, method, key, digest, updated, lease_expires) VALUES (?, ?, ?, ?, ?, ?) RETURNING fence
"""
# A fence is never reused and thus identifies the claim.
_STORE_REPLY = """
UPDATE claims SET lease_expires = NULL, reply = ?, session_id = ?, updated = ?
WHERE fence = ? AND lease_expires IS NOT NULL RETURNING fence
"""
_RELEASE = "DELETE FROM claims WHERE fence = ? AND lease_expires IS NOT NULL RETURNING fence"
_RENEW = "UPDATE claims SET lease_expires = ? WHERE fence = ? AND lease_expires IS NOT NULL"


def claim(db: apsw.Connection, key: tuple[str, str, str], digest: bytes, times: Times) -> Claim | bytes:
    """Claims a key, or returns its stored reply.

    Args:
        db: The writer's connection.
        key: Account, method and key.
        digest: The SHA-256 of the request.
        times: The current times and the duration of the lease.

    Raises:
        KeyInUse: Another call holds the key.
        KeyReused: The key was used with a different request.
        ReplyDeleted: The reply was deleted with its session.
    """
    for known, leased, reply in rows(db, _FIND, key):
        if known != digest:
            raise KeyReused
        if leased is None:
            return _stored(reply)
        if leased > times.lease:
            raise KeyInUse(leased - times.lease)
        db.execute(_DELETE, key)
    return Claim(*key, rows(db, _CLAIM, (*key, digest, times.wall, times.lease_expires))[0][0])


def _stored(reply: bytes | None) -> bytes:
    if reply is None:
        raise ReplyDeleted
    return bytes(reply)


def end_claim(db: apsw.Connection, claim: Claim, reply: bytes | None, session_id: str | None, now: float) -> None:
    """Stores the reply, which is deleted with its session, or releases the key if `reply` is None. Raises TurnLost."""
    if reply is None:
        ended = rows(db, _RELEASE, (claim.fence,))
    else:
        ended = rows(db, _STORE_REPLY, (reply, session_id, now, claim.fence))
    if not ended:
        raise TurnLost


def renew_claims(db: apsw.Connection, claims: Sequence[Claim], expires: float) -> None:
    """Extends the leases of the keys that are still held."""
    db.executemany(_RENEW, [(expires, claim.fence) for claim in claims])
