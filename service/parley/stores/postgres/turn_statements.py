"""The SQL statements of turns."""

import re

from parley.stores.postgres.rows import now

CHANNEL = "parley_released"
"""The channel of notifications about released leases."""


def _alone(statement: str) -> str:
    """Returns the form of a statement for one turn with one message."""

    def values(columns: re.Match[str]) -> str:
        return f"(VALUES ({columns[1].replace('[]', '')})) AS {columns[2]}"

    return re.sub(r"unnest\((.*?)\)\s+AS (sent|part)", values, statement, flags=re.DOTALL)


# Each of the following statements serves several turns. They are sorted by session, so that statements that wait for
# each other's rows cannot deadlock. Parameters are columns: of the turns, and of their messages. For one turn with one
# message they are single values, see `_alone`, which costs less.
_TURN_COLUMNS = "$5::integer[], $6::integer[], $7::bigint[], $8::bigint[], $9::boolean[], $10::text[], $11::bigint[]"
_TURN_NAMES = "asked, messages, tokens, bytes, continues, metadata, size"


def _messages(first: int) -> str:
    """Returns the rows of messages. `first` is the number of the first of their four parameters."""
    columns = f"${first}::text[], ${first + 1}::integer[], ${first + 2}::bytea[], ${first + 3}::boolean[]"
    return f"unnest({columns}) AS part (id, position, message, system)"


_SENT = f"""
WITH sent AS MATERIALIZED (
  SELECT *, {now(1)} AS now
  FROM unnest($2::text[], $3::text[], $4::float8[], {_TURN_COLUMNS}, $12::text[])
  AS sent (id, account, lease, {_TURN_NAMES}, model)
), leased AS (
  INSERT INTO parley.sessions (id, account, model, created, updated, turn_count, lease_fence, lease_expires, bytes)
  SELECT id, account, model, now, now, 1, 1, now + lease, size FROM sent
"""
CREATE = f"""
{_SENT}
), turn AS (
  INSERT INTO parley.turns (session_id, number, state, created, asked, messages, tokens, bytes, continues, metadata)
  SELECT id, 1, 'in_progress', now, asked, messages, tokens, bytes, continues, metadata FROM sent
)
INSERT INTO parley.messages (session_id, turn, position, message, system)
SELECT id, 1, position, message, system FROM {_messages(13)}
"""
CREATE_ONE = _alone(CREATE)
# Creates one session with an id that the caller has chosen, unless there is one. A statement of its own, because its
# conflict would undo the other sessions of a shared one.
CREATE_ABSENT = f"""
{_SENT}
  ON CONFLICT (id) DO NOTHING RETURNING id
), turn AS (
  INSERT INTO parley.turns (session_id, number, state, created, asked, messages, tokens, bytes, continues, metadata)
  SELECT id, 1, 'in_progress', now, asked, messages, tokens, bytes, continues, metadata FROM sent JOIN leased USING (id)
), added AS (
  INSERT INTO parley.messages (session_id, turn, position, message, system)
  SELECT part.id, 1, position, message, system FROM {_messages(13)} JOIN leased USING (id)
)
SELECT id FROM leased
"""


def _history() -> str:
    """Returns the column of the messages from the turn `first` on of the session `id`; null if `first` is."""
    return """CASE WHEN first IS NOT NULL THEN ARRAY(
  SELECT message FROM parley.messages JOIN parley.turns USING (session_id)
  WHERE session_id = id AND number = turn AND turn >= first AND number >= first AND state = 'completed' AND NOT system
  ORDER BY turn, position
) END AS history"""


# Writes nothing of a turn if the session has changed since `STATE` was read, so that the decisions based on it remain
# valid. The time of the latest turn tells it from one with the same fence that replaced it after a failover.
LEASE = f"""
WITH sent AS MATERIALIZED (
  SELECT *, {now(1)} AS now
  FROM unnest($2::text[], $3::text[], $4::float8[], {_TURN_COLUMNS}, $12::float8[], $13::bigint[], $14::float8[],
    $15::bigint[], $16::integer[])
  AS sent (id, account, lease, {_TURN_NAMES}, last, fence, expires, new_fence, first)
), leased AS (
  UPDATE parley.sessions AS session
  SET updated = now, turn_count = turn_count + 1, lease_fence = new_fence, lease_expires = now + lease,
    bytes = session.bytes + size
  FROM sent
  WHERE session.id = sent.id AND session.account = sent.account AND session.updated = last AND lease_fence = fence
  AND lease_expires IS NOT DISTINCT FROM expires AND (lease_expires IS NULL OR lease_expires <= now)
  RETURNING session.id, turn_count, lease_fence, now, asked, messages, tokens, sent.bytes, continues, metadata, expires,
    first
), crashed AS (
  UPDATE parley.turns SET state = 'incomplete', reason = 'crashed' FROM leased
  WHERE expires IS NOT NULL AND session_id = id AND number = turn_count - 1 AND state = 'in_progress'
), turn AS (
  INSERT INTO parley.turns (session_id, number, state, created, asked, messages, tokens, bytes, continues, metadata)
  SELECT id, turn_count, 'in_progress', now, asked, messages, tokens, bytes, continues, metadata FROM leased
), added AS (
  INSERT INTO parley.messages (session_id, turn, position, message, system)
  SELECT part.id, turn_count, position, message, system FROM {_messages(17)} JOIN leased USING (id)
)
SELECT id, turn_count, lease_fence, now, {_history()} FROM leased
"""
LEASE_ONE = _alone(LEASE)
# The result of an earlier `LEASE`, if that lease is still held: no other lease has its fence.
LEASED = f"""
SELECT id, turn_count, lease_fence, now, {_history()} FROM (
  SELECT id, turn_count, lease_fence, updated AS now, $4::integer AS first FROM parley.sessions
  WHERE id = $1 AND account = $2 AND lease_fence = $3 AND lease_expires IS NOT NULL
) AS held
"""
HISTORY = """
SELECT message FROM parley.messages JOIN parley.turns USING (session_id)
WHERE session_id = $1 AND number = turn AND turn BETWEEN $2 AND $3 AND number BETWEEN $2 AND $3
AND state = 'completed' AND NOT system
ORDER BY turn, position
"""

# The messages of a turn with a state from a position on.
ANSWER = """
SELECT message FROM parley.messages JOIN parley.turns USING (session_id)
WHERE session_id = $1 AND number = $2 AND turn = $2 AND position >= $3 AND state = $4
ORDER BY position
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
SELECT model, updated, lease_fence, lease_expires, coalesce(lease_expires - {now(3)}, 0) AS lease_remaining,
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
_ENDED = f"""
ended AS (
  UPDATE parley.turns AS turn
  SET state = released.state, reason = released.reason, messages = turn.messages + released.messages,
    tokens = turn.tokens + released.tokens, bytes = turn.bytes + released.bytes, usage = released.usage,
    receipt = released.receipt
  FROM released WHERE session_id = id AND turn.number = released.number
), added AS (
  INSERT INTO parley.messages (session_id, turn, position, message, system)
  SELECT part.id, number, position, message, system
  FROM {_messages(17)}
  JOIN released USING (id)
)
"""
# The limits are settled after all sessions are released, in an order in which statements cannot deadlock.
_RESULT = f"""
SELECT id, CASE WHEN awaited THEN pg_notify('{CHANNEL}', id) END, CASE WHEN call IS NOT NULL THEN
  parley.settle(call, ($21::text[])[low:high], ($22::text[])[low:high], ($23::float8[])[low:high],
    ($24::float8[])[low:high], ($25::float8[])[low:high], $1)
END
FROM (SELECT * FROM released ORDER BY low OFFSET 0) AS ordered
"""
_RELEASED = """
sent AS MATERIALIZED (
  SELECT * FROM unnest($2::text[], $3::bigint[], $4::integer[], $5::integer[], $6::text[], $7::text[], $8::integer[],
    $9::bigint[], $10::bigint[], $11::bytea[], $12::bytea[], $13::bigint[], $14::text[], $15::integer[], $16::integer[])
  AS sent (id, fence, number, completed, state, reason, messages, tokens, bytes, usage, receipt, size, call, low, high)
), released AS (
  UPDATE parley.sessions AS session
  SET lease_expires = NULL, completed_messages = completed_messages + completed, bytes = session.bytes + size
  FROM sent WHERE session.id = sent.id AND lease_fence = fence AND lease_expires IS NOT NULL{}
  RETURNING session.id, awaited = lease_fence AS awaited, number, state, reason, messages, tokens, sent.bytes, usage,
    receipt, call, low, high
)
"""
END = f"WITH {_RELEASED.format('')}, {_ENDED} {_RESULT}"
END_ONE = _alone(END)
# Serves one turn.
END_WITH_CLAIM = f"""
WITH held AS MATERIALIZED (
  SELECT FROM parley.claims
  WHERE account = $26 AND method = $27 AND key = $28 AND fence = $29 AND lease_expires IS NOT NULL FOR UPDATE
), {_RELEASED.format(" AND EXISTS (SELECT FROM held)")}, {_ENDED}, kept AS (
  UPDATE parley.claims SET lease_expires = NULL, reply = $30, session_id = released.id, updated = {now(1)}
  FROM released
  WHERE account = $26 AND method = $27 AND key = $28 AND fence = $29 AND $30::bytea IS NOT NULL
), freed AS (
  DELETE FROM parley.claims USING released
  WHERE account = $26 AND method = $27 AND key = $28 AND fence = $29 AND $30::bytea IS NULL
)
{_RESULT}
"""
RENEW = f"""
UPDATE parley.sessions SET lease_expires = {now(1)} + $2
FROM unnest($3::text[], $4::bigint[]) AS held (session_id, fence)
WHERE id = held.session_id AND lease_fence = held.fence AND lease_expires IS NOT NULL
"""
