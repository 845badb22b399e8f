-- What is used of the limits a minute. A bucket without a row is unused.
CREATE TABLE buckets (
  subject TEXT NOT NULL,                              -- key:ID or account:NAME
  kind    TEXT NOT NULL,                              -- what is counted: requests, tokens
  used    REAL NOT NULL CHECK (used >= 0),            -- at the time `updated`; it drains from then on
  updated REAL NOT NULL,
  PRIMARY KEY (subject, kind)
) STRICT, WITHOUT ROWID;
