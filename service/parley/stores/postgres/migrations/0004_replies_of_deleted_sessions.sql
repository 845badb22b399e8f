-- A key remains used after its session is deleted: only the reply is deleted with it. Runs before the cascade, which then
-- finds no row.
CREATE FUNCTION parley.forget_replies() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE parley.claims SET reply = NULL, session_id = NULL WHERE session_id = OLD.id;
  RETURN OLD;
END $$;
CREATE TRIGGER forget_replies BEFORE DELETE ON parley.sessions FOR EACH ROW EXECUTE FUNCTION parley.forget_replies();
