-- The used amounts of the limits per minute. A bucket without a row is unused.
CREATE TABLE buckets (
  subject TEXT NOT NULL,                              -- key:ID or account:NAME
  kind    TEXT NOT NULL,                              -- requests or tokens
  used    REAL NOT NULL CHECK (used >= 0),            -- at the time `updated`; decreases from then on
  updated REAL NOT NULL,
  PRIMARY KEY (subject, kind)
) STRICT, WITHOUT ROWID;
