-- A key stays known after its session: only the reply goes with the session. Before the cascade, which then finds none.
CREATE TRIGGER forget_replies BEFORE DELETE ON sessions BEGIN
  UPDATE claims SET reply = NULL, session_id = NULL WHERE session_id = OLD.id;
END;
