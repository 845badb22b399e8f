-- The answers that models with a cache keep. Times are of the lease clock, which no step of the wall clock moves.
CREATE TABLE cached_answers (
  digest     BLOB NOT NULL PRIMARY KEY,               -- SHA-256 of what decides the answer
  account    TEXT NOT NULL,                           -- whose call got it
  model      TEXT NOT NULL,
  session_id TEXT REFERENCES sessions (id) ON DELETE CASCADE, -- of that call, with which it is removed; NULL: none
  created    REAL NOT NULL,
  expires    REAL NOT NULL,
  size       INTEGER NOT NULL,                        -- bytes of the answer, and what a row takes
  answer     BLOB NOT NULL                            -- a parley.v1.ChatCompletion
) STRICT;

CREATE INDEX cached_answers_by_owner ON cached_answers (account, model, created, size);
CREATE INDEX cached_answers_by_session ON cached_answers (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX cached_answers_by_expiry ON cached_answers (expires);
