-- Thresholds of limits that were reached, each once for each period, and the delivery of their notifications.
CREATE TABLE alerts (
  id        TEXT NOT NULL PRIMARY KEY,
  subject   TEXT NOT NULL,                            -- account:NAME or account:NAME/key:ID
  name      TEXT NOT NULL,                            -- of the limit
  period    TEXT NOT NULL,                            -- 2026-11-26 or 2026-11
  threshold REAL NOT NULL,                            -- share of the limit
  payload   TEXT NOT NULL,
  tries     INTEGER NOT NULL,
  created   REAL NOT NULL,
  due       REAL,                                     -- when to deliver next; NULL if delivery is not wanted or has ended
  UNIQUE (subject, name, period, threshold)
) STRICT, WITHOUT ROWID;

CREATE INDEX alerts_due ON alerts (due) WHERE due IS NOT NULL;
