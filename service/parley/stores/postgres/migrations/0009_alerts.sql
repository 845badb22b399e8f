-- Thresholds of limits that were reached, each once for each period, and the delivery of their notifications.
CREATE TABLE parley.alerts (
  id        text NOT NULL PRIMARY KEY,
  subject   text NOT NULL,                            -- account:NAME or account:NAME/key:ID
  name      text NOT NULL,                            -- of the limit
  period    text NOT NULL,                            -- 2026-11-26 or 2026-11
  threshold float8 NOT NULL,                          -- share of the limit
  payload   text NOT NULL,
  tries     bigint NOT NULL,
  created   float8 NOT NULL,
  due       float8,                                   -- when to deliver next; NULL if delivery is not wanted or has ended
  UNIQUE (subject, name, period, threshold)
);

CREATE INDEX alerts_due ON parley.alerts (due) WHERE due IS NOT NULL;
