"""The SQL statements of turns."""

from parley.stores.postgres.rows import now

CHANNEL = "parley_released"
"""The channel of notifications about released leases."""

_ADD = """
turn AS (
  INSERT INTO parley.turns
    (session_id, number, state, created, asked, messages, tokens, bytes, continues, metadata)
  SELECT $1, turn_count, 'in_progress', now, $5, $6, $7, $8, $9, $10 FROM leased
), added AS (
  INSERT INTO parley.messages (session_id, turn, position, message, system)
  SELECT $1, turn_count, place - 1, message, system
  FROM leased, unnest($12::bytea[], $13::boolean[]) WITH ORDINALITY AS sent (message, system, place)
)
"""
CREATE = f"""
WITH clock AS (SELECT {now(3)} AS now), leased AS (
  INSERT INTO parley.sessions (id, account, model, created, updated, turn_count, lease_fence, lease_expires, bytes)
  SELECT $1, $2, $14, now, now, 1, 1, now + $4, $11 FROM clock
  RETURNING turn_count, lease_fence, updated AS now
), {_ADD}
SELECT turn_count, lease_fence FROM leased
"""
# Writes nothing if the session's fence or lease has changed since `STATE` was read, so that the decisions based on it
# remain valid.
LEASE = f"""
WITH clock AS (SELECT {now(3)} AS now), leased AS (
  UPDATE parley.sessions
  SET updated = now, turn_count = turn_count + 1, lease_fence = lease_fence + 1, lease_expires = now + $4,
    bytes = bytes + $11
  FROM clock
  WHERE id = $1 AND account = $2 AND created = $14 AND lease_fence = $15 AND lease_expires IS NOT DISTINCT FROM $16
  AND (lease_expires IS NULL OR lease_expires <= now)
  RETURNING turn_count, lease_fence, now
), crashed AS (
  UPDATE parley.turns SET state = 'incomplete', reason = 'crashed' FROM leased
  WHERE session_id = $1 AND number = turn_count - 1 AND state = 'in_progress'
), {_ADD}
SELECT turn_count, lease_fence, ARRAY(
  SELECT message FROM parley.messages JOIN parley.turns USING (session_id)
  WHERE session_id = $1 AND number = turn AND turn >= $17 AND number >= $17 AND state = 'completed' AND NOT system
  ORDER BY turn, position
) AS history
FROM leased
"""
HISTORY = """
SELECT message FROM parley.messages JOIN parley.turns USING (session_id)
WHERE session_id = $1 AND number = turn AND turn BETWEEN $2 AND $3 AND number BETWEEN $2 AND $3
AND state = 'completed' AND NOT system
ORDER BY turn, position
"""


def _bounded(messages: str, order: str) -> str:
    """Returns SQL for an array of messages, which ends with the message that exceeds a total of $6 bytes."""
    return f"""ARRAY(
    SELECT message FROM (
      SELECT message, turn, position, octet_length(message) AS size,
        sum(octet_length(message)) OVER (ORDER BY {order}) AS total
      FROM ({messages}) AS found
    ) AS sized WHERE total - size <= $6::bigint ORDER BY {order}
  )"""


_OLDEST, _NEWEST = "turn, position", "turn DESC, position DESC"
# A subquery instead of a join: a join that starts with the turns would read all of them.
_SYSTEM = """
SELECT message, turn, position FROM parley.messages
WHERE session_id = $1 AND system
AND (SELECT state FROM parley.turns WHERE session_id = $1 AND number = turn) = 'completed'
ORDER BY turn, position LIMIT $7
"""
_COMPLETED = """
SELECT message, turn, position FROM parley.messages JOIN parley.turns USING (session_id)
WHERE session_id = $1 AND number = turn AND state = 'completed'
"""
STATE = f"""
SELECT model, created, lease_fence, lease_expires, coalesce(lease_expires - {now(3)}, 0) AS lease_remaining,
  sessions.bytes AS session_bytes,
  system_messages,
  -- The messages to compare with a request of $4 messages: all if it may repeat all, otherwise $4 from either end.
  CASE WHEN $4 > 0 AND completed_messages > 0 AND completed_messages - cardinality(system_messages) <= $4
    THEN {_bounded(f"{_COMPLETED} ORDER BY {_OLDEST}", _OLDEST)} END AS stored,
  CASE WHEN $4 > 0 AND completed_messages - cardinality(system_messages) > $4
    THEN {_bounded(f"{_COMPLETED} AND NOT system ORDER BY {_OLDEST} LIMIT $4", _OLDEST)} END AS first,
  CASE WHEN $4 > 0 AND completed_messages - cardinality(system_messages) > $4
    THEN {_bounded(f"{_COMPLETED} AND NOT system ORDER BY {_NEWEST} LIMIT $4", _NEWEST)} END AS latest,
  sizes.*
FROM parley.sessions, LATERAL (
  SELECT {_bounded(_SYSTEM, _OLDEST)} AS system_messages OFFSET 0
) AS of_system, LATERAL (
  SELECT array_agg(number) AS numbers, array_agg(messages) AS messages, array_agg(tokens) AS tokens,
    array_agg(continues) AS continues, array_agg(bytes) AS bytes
  FROM (
    SELECT number, messages, tokens, continues, bytes FROM parley.turns
    WHERE session_id = $1 AND state = 'completed' ORDER BY number DESC LIMIT $5
  ) AS latest
) AS sizes
WHERE id = $1 AND account = $2 AND deleted IS NULL
"""
END = f"""
WITH clock AS (SELECT {now(1)} AS now), held AS MATERIALIZED (
  SELECT FROM parley.claims
  WHERE account = $2 AND method = $3 AND key = $4 AND fence = $5 AND lease_expires IS NOT NULL FOR UPDATE
), released AS (
  UPDATE parley.sessions SET lease_expires = NULL, completed_messages = completed_messages + $8,
    bytes = bytes + $20
  WHERE id = $6 AND lease_fence = $7 AND lease_expires IS NOT NULL AND ($5::bigint IS NULL OR EXISTS (SELECT FROM held))
  RETURNING id, awaited = lease_fence AS awaited
), ended AS (
  UPDATE parley.turns
  SET state = $9, reason = $10, messages = messages + $11, tokens = tokens + $12, bytes = bytes + $13, usage = $14,
    receipt = $15
  FROM released WHERE session_id = released.id AND number = $16
  RETURNING asked
), added AS (
  INSERT INTO parley.messages (session_id, turn, position, message, system)
  SELECT $6, $16, asked + place - 1, message, system
  FROM ended, unnest($17::bytea[], $18::boolean[]) WITH ORDINALITY AS answer (message, system, place)
), kept AS (
  UPDATE parley.claims SET lease_expires = NULL, reply = $19, session_id = $6, updated = clock.now
  FROM clock, released
  WHERE account = $2 AND method = $3 AND key = $4 AND fence = $5 AND $19::bytea IS NOT NULL
), freed AS (
  DELETE FROM parley.claims USING released
  WHERE account = $2 AND method = $3 AND key = $4 AND fence = $5 AND $19::bytea IS NULL
)
SELECT CASE WHEN awaited THEN pg_notify('{CHANNEL}', id) END,
  CASE WHEN $21::text IS NOT NULL THEN parley.settle($21, $22, $23, $24, $25, $26, $1) END
FROM released
"""
RENEW = f"""
UPDATE parley.sessions SET lease_expires = {now(1)} + $2
FROM unnest($3::text[], $4::bigint[]) AS held (session_id, fence)
WHERE id = held.session_id AND lease_fence = held.fence AND lease_expires IS NOT NULL
"""
