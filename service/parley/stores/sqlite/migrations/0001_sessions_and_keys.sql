-- Times are Unix seconds.

CREATE TABLE accounts (
  name TEXT PRIMARY KEY,
  plan TEXT NOT NULL CHECK (plan IN ('free', 'pro'))
) STRICT, WITHOUT ROWID;

-- With a rowid: it preserves the order of the keys that were created within one second.
CREATE TABLE api_keys (
  id      TEXT PRIMARY KEY,
  digest  BLOB NOT NULL UNIQUE,                       -- SHA-256 of the secret
  name    TEXT NOT NULL,
  account TEXT NOT NULL REFERENCES accounts (name),
  models  TEXT NOT NULL,                              -- JSON list of model ids, [] for all
  created INTEGER NOT NULL,
  expires INTEGER,
  revoked INTEGER
) STRICT;

-- No foreign key to accounts: sessions do not require that the account has API keys.
CREATE TABLE sessions (
  id            TEXT PRIMARY KEY,
  account       TEXT NOT NULL,
  model         TEXT NOT NULL,
  created       REAL NOT NULL,
  updated       REAL NOT NULL,                        -- when the latest turn began
  turn_count    INTEGER NOT NULL,                     -- also the latest turn's number
  lease_fence   INTEGER NOT NULL,                     -- incremented with every lease
  lease_expires REAL                                  -- NULL: no turn is in progress
) STRICT, WITHOUT ROWID;

-- Lists are read from this index alone, except for the rows of the page; it contains the model for the filter.
CREATE INDEX sessions_by_account ON sessions (account, updated DESC, id DESC, model);

-- Sessions whose turn may have crashed; small, because few have a turn in progress.
CREATE INDEX sessions_leased ON sessions (lease_expires) WHERE lease_expires IS NOT NULL;

CREATE TABLE turns (
  session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
  number     INTEGER NOT NULL,                        -- from 1
  state      TEXT NOT NULL CHECK (state IN ('in_progress', 'completed', 'incomplete')),
  reason     TEXT,                                    -- why it is incomplete
  created    REAL NOT NULL,
  PRIMARY KEY (session_id, number)
) STRICT, WITHOUT ROWID;

-- With a rowid, although it has a key: without one, SQLite reads complete messages of several megabytes when it searches
-- for the position of a neighboring one. The index of the key has the order of the conversation.
CREATE TABLE messages (
  session_id TEXT NOT NULL,
  turn       INTEGER NOT NULL,
  position   INTEGER NOT NULL,                        -- within the turn, from 0
  message    BLOB NOT NULL,                           -- a parley.v1.Message
  PRIMARY KEY (session_id, turn, position),
  FOREIGN KEY (session_id, turn) REFERENCES turns (session_id, number) ON DELETE CASCADE
) STRICT;
