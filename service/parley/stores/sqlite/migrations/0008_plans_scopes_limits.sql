-- Any plan of the configuration, suspension, and the settings of keys. Both tables are made anew, because SQLite cannot
-- remove a CHECK; the order of the keys is preserved.

CREATE TABLE new_accounts (
  name      TEXT PRIMARY KEY,
  plan      TEXT NOT NULL,
  limits    TEXT NOT NULL DEFAULT '{}',               -- JSON object: the limits that replace those of the plan
  suspended INTEGER                                   -- when it was suspended; NULL for an active account
) STRICT, WITHOUT ROWID;

CREATE TABLE new_api_keys (
  id               TEXT PRIMARY KEY,
  digest           BLOB NOT NULL UNIQUE,              -- SHA-256 of the secret
  name             TEXT NOT NULL,
  account          TEXT NOT NULL REFERENCES new_accounts (name),
  models           TEXT NOT NULL,                     -- JSON list of model ids, [] for all
  created          INTEGER NOT NULL,
  expires          INTEGER,
  revoked          INTEGER,
  scopes           TEXT NOT NULL DEFAULT '[]',        -- JSON list of scopes, [] for all
  limits           TEXT NOT NULL DEFAULT '{}',        -- JSON object: the limits that replace those of the configuration
  previous_digest  BLOB UNIQUE,                       -- SHA-256 of the secret before the latest rotation
  previous_expires INTEGER
) STRICT;

INSERT INTO new_accounts (name, plan) SELECT name, plan FROM accounts;
INSERT INTO new_api_keys (id, digest, name, account, models, created, expires, revoked)
  SELECT id, digest, name, account, models, created, expires, revoked FROM api_keys ORDER BY rowid;

DROP TABLE api_keys;
DROP TABLE accounts;
ALTER TABLE new_accounts RENAME TO accounts;
ALTER TABLE new_api_keys RENAME TO api_keys;
