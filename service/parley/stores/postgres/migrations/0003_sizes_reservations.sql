ALTER TABLE parley.turns ADD COLUMN bytes bigint NOT NULL DEFAULT 0; -- of the messages that `messages` counts, serialized
ALTER TABLE parley.turns ADD COLUMN reserved text;     -- JSON: the charges that a turn in progress has reserved

UPDATE parley.turns SET bytes = size FROM (
  SELECT session_id, turn, sum(octet_length(message)) AS size
  FROM parley.messages WHERE NOT system GROUP BY session_id, turn
) AS said WHERE turns.session_id = said.session_id AND number = turn;

DROP INDEX parley.turns_completed;
CREATE INDEX turns_completed ON parley.turns (session_id, number) INCLUDE (messages, tokens, continues, bytes)
  WHERE state = 'completed';

-- Reservations that may have to be refunded; few, because few turns are in progress.
CREATE INDEX turns_reserved ON parley.turns (session_id, number) WHERE reserved IS NOT NULL;
