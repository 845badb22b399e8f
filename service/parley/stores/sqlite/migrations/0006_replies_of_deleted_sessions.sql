-- A key remains used after its session is deleted: only the reply is deleted with it. Runs before the cascade, which then
-- finds no row.
CREATE TRIGGER forget_replies BEFORE DELETE ON sessions BEGIN
  UPDATE claims SET reply = NULL, session_id = NULL WHERE session_id = OLD.id;
END;
