-- What calls have used. Counts are added at most about a second after the end of a call.
CREATE TABLE usage (
  account           TEXT NOT NULL,
  day               INTEGER NOT NULL,                 -- in UTC, as days since 1970-01-01
  key               TEXT NOT NULL,
  model             TEXT NOT NULL,
  target            TEXT NOT NULL,                    -- empty for calls that ended before their first attempt
  calls             INTEGER NOT NULL,
  errors            INTEGER NOT NULL,
  attempts          INTEGER NOT NULL,
  prompt_tokens     INTEGER NOT NULL,
  cached_tokens     INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  reasoning_tokens  INTEGER NOT NULL,
  cost_nanos        INTEGER NOT NULL,                 -- in units of 10⁻⁹ of the configured prices' currency
  PRIMARY KEY (account, day, key, model, target)
) STRICT, WITHOUT ROWID;

-- The number of each worker's last batch of counts: a batch that is sent again after an error is added once.
CREATE TABLE usage_writers (
  writer  TEXT NOT NULL PRIMARY KEY,
  batch   INTEGER NOT NULL,
  updated REAL NOT NULL
) STRICT, WITHOUT ROWID;
