-- The audit log. Rows are only added: triggers reject every other change.
CREATE TABLE audit (
  place   INTEGER PRIMARY KEY AUTOINCREMENT,          -- the order of the events
  id      TEXT NOT NULL UNIQUE,                       -- a UUID of version 7
  time    INTEGER NOT NULL,
  actor   TEXT NOT NULL,                              -- user:NAME, admin-key:NAME or parley
  source  TEXT NOT NULL,                              -- cli, socket, up or an IP address
  method  TEXT NOT NULL,                              -- an RPC of parley.admin.v1
  subject TEXT NOT NULL,                              -- key:ID or account:NAME
  changes TEXT NOT NULL                               -- JSON object of [before, after] by field
) STRICT;

CREATE INDEX audit_by_subject ON audit (subject, place);

CREATE TRIGGER audit_is_never_updated BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;

-- For lists of keys.
CREATE INDEX api_keys_by_age ON api_keys (created);
