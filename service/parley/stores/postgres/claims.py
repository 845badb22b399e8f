"""Idempotency keys in SQL."""

from collections.abc import Sequence

import asyncpg

from parley.core.errors import KeyInUse, KeyReused, ReplyDeleted, TurnLost
from parley.core.ports import Claim
from parley.stores.postgres.database import Connection
from parley.stores.postgres.rows import Now, now

# Until a claim has a reply, its column contains the call that claims.
_CLAIM = f"""
INSERT INTO parley.claims AS claim (account, method, key, digest, updated, lease_expires, reply)
SELECT $2, $3, $4, $5, now, now + $6, $7 FROM (SELECT {now(1)} AS now) AS clock
ON CONFLICT (account, method, key) DO UPDATE
SET fence = nextval('parley.claim_fences'), updated = excluded.updated, lease_expires = excluded.lease_expires,
  reply = excluded.reply
WHERE claim.digest = excluded.digest AND claim.lease_expires <= excluded.updated AND $8::float8 <= 0
RETURNING fence
"""
_FIND = f"""
SELECT digest, fence, lease_expires, lease_expires - {now(4)} AS lease_remaining, session_id, reply
FROM parley.claims WHERE account = $1 AND method = $2 AND key = $3
"""
# A statement of its own, because a distributed database has the session and the claim in different shards.
_EXISTS = "SELECT EXISTS (SELECT FROM parley.sessions WHERE id = $1 AND deleted IS NULL)"
_HELD = "account = $1 AND method = $2 AND key = $3 AND fence = $4 AND lease_expires IS NOT NULL"
_STORE_REPLY = f"""
UPDATE parley.claims SET lease_expires = NULL, reply = $5, session_id = $6, updated = {now(7)}
WHERE {_HELD} RETURNING fence
"""
_RELEASE = f"DELETE FROM parley.claims WHERE {_HELD} RETURNING fence"
_RENEW = f"""
UPDATE parley.claims AS claim SET lease_expires = {now(1)} + $2
FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[]) AS held (account, method, key, fence)
WHERE claim.account = held.account AND claim.method = held.method AND claim.key = held.key
AND claim.fence = held.fence AND claim.lease_expires IS NOT NULL
"""
_MAX_TRIES = 10


async def claim(  # noqa: PLR0913, PLR0917 - the port's arguments
    db: Connection,
    account: str,
    method: str,
    key: str,
    digest: bytes,
    now: Now,
    lease_seconds: float,
    call: bytes,
    grace: float,
) -> Claim | bytes:
    """Claims the key, or returns its stored reply.

    Args:
        db: The connection.
        account: The account.
        method: The called method.
        key: The key.
        digest: The digest of the request.
        now: The current time.
        lease_seconds: The duration of the lease.
        call: Random bytes by which a repetition after an unknown outcome recognizes its own claim.
        grace: The seconds for which also an expired claim is held, see `Pool.lease_grace`.

    Raises:
        KeyInUse: Another call holds the key.
        KeyReused: The key was used with a different request.
        ReplyDeleted: The reply was deleted with its session.
    """
    full_key = (account, method, key)
    remaining = 0.0
    for _ in range(_MAX_TRIES):
        fence = await db.fetchval(_CLAIM, now, *full_key, digest, lease_seconds, call, grace)
        if fence is not None:
            return Claim(*full_key, fence)
        if (found := await db.fetchrow(_FIND, *full_key, now)) is None:
            continue  # released between the two statements
        if found["digest"] != digest:
            raise KeyReused
        if found["lease_expires"] is None:
            return await _stored(db, found)
        if found["reply"] == call:
            return Claim(*full_key, found["fence"])
        remaining = max(found["lease_remaining"], grace)
        if remaining > 0:
            break
    raise KeyInUse(remaining)


async def _stored(db: Connection, found: asyncpg.Record) -> bytes:
    reply, session_id = found["reply"], found["session_id"]
    if reply is None or (session_id is not None and not await db.fetchval(_EXISTS, session_id)):
        raise ReplyDeleted
    return bytes(reply)


async def end_claim(db: Connection, claim: Claim, reply: bytes | None, now: Now, session_id: str | None = None) -> None:
    """Stores the reply, which is deleted with its session, or releases the key if `reply` is None. Raises TurnLost."""
    held = (claim.account, claim.method, claim.key, claim.fence)
    if reply is None:
        ended = await db.fetchval(_RELEASE, *held)
    else:
        ended = await db.fetchval(_STORE_REPLY, *held, reply, session_id, now)
    if ended is None:
        raise TurnLost


async def renew_claims(db: Connection, claims: Sequence[Claim], now: Now, lease_seconds: float) -> None:
    """Extends the leases of the keys that are still held."""
    held = sorted((claim.account, claim.method, claim.key, claim.fence) for claim in claims)
    await db.execute(_RENEW, now, lease_seconds, *map(list, zip(*held, strict=True)))
