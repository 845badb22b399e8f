-- When the session was deleted, in Unix seconds; NULL while it exists. A deleted session is hidden from every reader, and
-- its rows are removed in small transactions.
ALTER TABLE parley.sessions ADD COLUMN deleted float8;

CREATE INDEX sessions_deleted ON parley.sessions (deleted) WHERE deleted IS NOT NULL;
