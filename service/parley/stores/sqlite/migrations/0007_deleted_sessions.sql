-- When the session was deleted, in Unix seconds; NULL while it exists. A deleted session is hidden from every reader, and
-- its rows are removed in small transactions.
ALTER TABLE sessions ADD COLUMN deleted REAL;

CREATE INDEX sessions_deleted ON sessions (deleted) WHERE deleted IS NOT NULL;
