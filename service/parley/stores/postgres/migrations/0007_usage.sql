-- What calls have used. Counts are added at most about a second after the end of a call.
CREATE TABLE parley.usage (
  account           text NOT NULL,
  day               int NOT NULL,                       -- in UTC, as days since 1970-01-01
  key               text NOT NULL,
  model             text NOT NULL,
  target            text NOT NULL,                      -- empty for calls that ended before their first attempt
  calls             bigint NOT NULL,
  errors            bigint NOT NULL,
  attempts          bigint NOT NULL,
  prompt_tokens     bigint NOT NULL,
  cached_tokens     bigint NOT NULL,
  completion_tokens bigint NOT NULL,
  reasoning_tokens  bigint NOT NULL,
  cost_nanos        bigint NOT NULL,                  -- in units of 10⁻⁹ of the configured prices' currency
  PRIMARY KEY (account, day, key, model, target)
);

-- The number of each worker's last batch of counts: a batch that is sent again after an error is added once.
CREATE TABLE parley.usage_writers (
  writer  text NOT NULL PRIMARY KEY,
  batch   bigint NOT NULL,
  updated float8 NOT NULL
);
