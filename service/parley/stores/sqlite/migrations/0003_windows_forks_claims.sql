-- The columns with which a turn reads only its window of the session.

ALTER TABLE sessions ADD COLUMN forked_from TEXT;                           -- that session may have been deleted
ALTER TABLE sessions ADD COLUMN completed_messages INTEGER NOT NULL DEFAULT 0;

ALTER TABLE turns ADD COLUMN asked     INTEGER NOT NULL DEFAULT 0;          -- number of the request's messages
ALTER TABLE turns ADD COLUMN messages  INTEGER NOT NULL DEFAULT 0;          -- number of all messages without system messages
ALTER TABLE turns ADD COLUMN tokens    INTEGER NOT NULL DEFAULT 0;          -- their estimated tokens
ALTER TABLE turns ADD COLUMN continues INTEGER NOT NULL DEFAULT 0 CHECK (continues IN (0, 1));
ALTER TABLE turns ADD COLUMN metadata  TEXT;                                -- JSON object of strings; NULL for none
ALTER TABLE turns ADD COLUMN usage     BLOB;                                -- a parley.v1.Usage

ALTER TABLE messages ADD COLUMN system INTEGER NOT NULL DEFAULT 0 CHECK (system IN (0, 1));

-- is_system, is_result and message_tokens are functions that Parley registers for the migrations.
UPDATE messages SET system = 1 WHERE is_system(message);

UPDATE turns SET
  asked = (SELECT count(*) FROM messages WHERE session_id = turns.session_id AND turn = number),
  (messages, tokens) = (
    SELECT count(*), coalesce(sum(message_tokens(message)), 0)
    FROM messages WHERE session_id = turns.session_id AND turn = number AND NOT system
  ),
  continues = coalesce((
    SELECT is_result(message)
    FROM messages WHERE session_id = turns.session_id AND turn = number AND NOT system ORDER BY position LIMIT 1
  ), 0);

UPDATE sessions SET completed_messages = (
  SELECT count(*) FROM turns JOIN messages ON messages.session_id = turns.session_id AND turn = number
  WHERE turns.session_id = sessions.id AND state = 'completed'
);

-- Contains all columns that determine the start of a window.
CREATE INDEX turns_completed ON turns (session_id, number, messages, tokens, continues) WHERE state = 'completed';

-- System messages are sent with every turn, however old they are.
CREATE INDEX messages_system ON messages (session_id, turn, position) WHERE system;

-- For the retention of sessions.
CREATE INDEX sessions_by_age ON sessions (updated);

-- Idempotency-Keys. A fence is never reused, also after its row was deleted. With a rowid: a reply may be long.
CREATE TABLE claims (
  fence         INTEGER PRIMARY KEY AUTOINCREMENT,
  account       TEXT NOT NULL,
  method        TEXT NOT NULL,
  key           TEXT NOT NULL,
  digest        BLOB NOT NULL,                        -- SHA-256 of the request
  updated       REAL NOT NULL,                        -- time of the claim, then of the reply
  lease_expires REAL,                                 -- NULL: it has a reply
  session_id    TEXT REFERENCES sessions (id) ON DELETE CASCADE,
  reply         BLOB,                                 -- a parley.v1.ChatCompletion
  UNIQUE (account, method, key)
) STRICT;

CREATE INDEX claims_by_session ON claims (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX claims_by_age ON claims (updated);
