-- The readings of the machine's clocks: see parley.stores.sqlite.clock. One row, created at the first write.
CREATE TABLE clock (
  id         INTEGER PRIMARY KEY CHECK (id = 1),
  boot       TEXT NOT NULL,                           -- id of the boot from which the uptimes count
  seen       REAL NOT NULL,                           -- uptime in seconds when the row was written
  leases     REAL NOT NULL,                           -- time of leases and limits, minus the uptime
  wall       REAL NOT NULL,                           -- the wall clock, minus the uptime
  retention  REAL NOT NULL,                           -- time of retention, minus the uptime; at most `wall`
  unverified REAL NOT NULL                            -- seconds to measure until the wall clock is trusted again
) STRICT;

ALTER TABLE turns ADD COLUMN bytes    INTEGER NOT NULL DEFAULT 0; -- of the messages that `messages` counts, serialized
ALTER TABLE turns ADD COLUMN reserved TEXT;           -- JSON: the charges that a turn in progress has reserved

UPDATE turns SET bytes = (
  SELECT coalesce(sum(length(message)), 0)
  FROM messages WHERE session_id = turns.session_id AND turn = number AND NOT system
);

DROP INDEX turns_completed;
CREATE INDEX turns_completed ON turns (session_id, number, messages, tokens, continues, bytes)
  WHERE state = 'completed';

-- Reservations that may have to be refunded; few, because few turns are in progress.
CREATE INDEX turns_reserved ON turns (session_id, number) WHERE reserved IS NOT NULL;
