-- Any plan of the configuration, suspension, and the settings of keys.

ALTER TABLE parley.accounts
  DROP CONSTRAINT accounts_plan_check,
  ADD COLUMN limits    text NOT NULL DEFAULT '{}',     -- JSON object: the limits that replace those of the plan
  ADD COLUMN suspended bigint;                         -- when it was suspended; NULL for an active account

ALTER TABLE parley.api_keys
  ADD COLUMN scopes           text[] NOT NULL DEFAULT '{}', -- empty for all
  ADD COLUMN limits           text NOT NULL DEFAULT '{}',   -- JSON object: limits that replace those of the configuration
  ADD COLUMN previous_digest  bytea UNIQUE,                 -- SHA-256 of the secret before the latest rotation
  ADD COLUMN previous_expires bigint;
