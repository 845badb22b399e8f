-- Calls that hold reservations. A call counts as running until its lease expires.
CREATE TABLE running_calls (
  id            TEXT PRIMARY KEY,
  key           TEXT NOT NULL,                        -- key:ID
  account       TEXT NOT NULL,                        -- account:NAME
  started       REAL NOT NULL,                        -- determines the day and the month of its reservations
  lease_expires REAL NOT NULL,
  reserved      TEXT NOT NULL                         -- JSON: the charges to return if the call crashes
) STRICT, WITHOUT ROWID;

CREATE INDEX running_calls_by_key ON running_calls (key, lease_expires);
CREATE INDEX running_calls_by_account ON running_calls (account, lease_expires);

-- They replace the reservations of turns. Those of a minute before this migration are not returned.
DROP INDEX turns_reserved;
ALTER TABLE turns DROP COLUMN reserved;

ALTER TABLE sessions ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0; -- of all its messages, serialized

UPDATE sessions SET bytes = (SELECT coalesce(sum(length(message)), 0) FROM messages WHERE session_id = sessions.id);

-- What each account has stored. Triggers keep it equal to the sessions that are not deleted.
CREATE TABLE storage (
  account  TEXT PRIMARY KEY,
  sessions INTEGER NOT NULL,
  bytes    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO storage SELECT account, count(*), sum(bytes) FROM sessions WHERE deleted IS NULL GROUP BY account;

CREATE TRIGGER storage_created AFTER INSERT ON sessions WHEN NEW.deleted IS NULL BEGIN
  INSERT INTO storage VALUES (NEW.account, 1, NEW.bytes)
  ON CONFLICT DO UPDATE SET sessions = sessions + 1, bytes = bytes + NEW.bytes;
END;
CREATE TRIGGER storage_changed AFTER UPDATE OF bytes ON sessions WHEN NEW.deleted IS NULL BEGIN
  UPDATE storage SET bytes = bytes + NEW.bytes - OLD.bytes WHERE account = NEW.account;
END;
CREATE TRIGGER storage_deleted AFTER UPDATE OF deleted ON sessions WHEN OLD.deleted IS NULL AND NEW.deleted IS NOT NULL BEGIN
  UPDATE storage SET sessions = sessions - 1, bytes = bytes - OLD.bytes WHERE account = NEW.account;
END;
CREATE TRIGGER storage_removed AFTER DELETE ON sessions WHEN OLD.deleted IS NULL BEGIN
  UPDATE storage SET sessions = sessions - 1, bytes = bytes - OLD.bytes WHERE account = OLD.account;
END;
