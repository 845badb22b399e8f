"""Idempotency-Keys in SQL: each function is one job of the writer, or part of one."""

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
_FREE = "DELETE FROM claims WHERE account = ? AND method = ? AND key = ?"
_CLAIM = """
INSERT INTO claims (account, method, key, digest, updated, lease_expires) VALUES (?, ?, ?, ?, ?, ?) RETURNING fence
"""
# A fence is never given twice, so that it names the claim.
_KEEP = """
UPDATE claims SET lease_expires = NULL, reply = ?, session_id = ?, updated = ?
WHERE fence = ? AND lease_expires IS NOT NULL RETURNING fence
"""
_GIVE_UP = "DELETE FROM claims WHERE fence = ? AND lease_expires IS NOT NULL RETURNING fence"
_RENEW = "UPDATE claims SET lease_expires = ? WHERE fence = ? AND lease_expires IS NOT NULL"


def claim(db: apsw.Connection, place: tuple[str, str, str], digest: bytes, times: Times) -> Claim | bytes:
    """Claims an account's key, or returns the reply that it has. Raises KeyInUse, KeyReused, ReplyDeleted."""
    for known, leased, reply in rows(db, _FIND, place):
        if known != digest:
            raise KeyReused
        if leased is None:
            return _kept(reply)
        if leased > times.lease:
            raise KeyInUse
        db.execute(_FREE, place)
    return Claim(*place, rows(db, _CLAIM, (*place, digest, times.wall, times.lease_expires))[0][0])


def _kept(reply: bytes | None) -> bytes:
    if reply is None:
        raise ReplyDeleted
    return bytes(reply)


def end_claim(db: apsw.Connection, claim: Claim, reply: bytes | None, session_id: str | None, now: float) -> None:
    """Keeps the reply, which goes when its session does; frees the key where there is none. Raises TurnLost."""
    if reply is None:
        ended = rows(db, _GIVE_UP, (claim.fence,))
    else:
        ended = rows(db, _KEEP, (reply, session_id, now, claim.fence))
    if not ended:
        raise TurnLost


def renew_claims(db: apsw.Connection, claims: Sequence[Claim], expires: float) -> None:
    """Extends the leases of those keys that are still held."""
    db.executemany(_RENEW, [(expires, claim.fence) for claim in claims])
