-- Distributes Parley's tables over the nodes of a Citus cluster. Run it once, as the owner of the tables, after
-- `parley db upgrade` and before the first call; then set `distributed: true` under `store`. See docs/scaling.md.
--
--   psql --single-transaction -v ON_ERROR_STOP=1 -f distribute.sql postgresql://parley@coordinator/parley
--
-- The rows of a session are in one shard, by its id. Idempotency keys are distributed by account, kept answers by their
-- digest. All other tables stay on one node: they grow with keys and accounts, and not with turns.

-- What would connect rows of different shards. Parley clears the replies of a session before it removes the session.
ALTER TABLE parley.claims DROP CONSTRAINT claims_session_id_fkey;
ALTER TABLE parley.cached_answers DROP CONSTRAINT cached_answers_session_id_fkey;
DROP TRIGGER forget_replies ON parley.sessions;
DROP TRIGGER count_storage ON parley.sessions;

-- Accounts with limits of storage read it from their sessions in all shards; others never call this.
CREATE OR REPLACE FUNCTION parley.lock_storage(owner text, OUT sessions bigint, OUT bytes bigint) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(owner, 7012640071583063));
  SELECT count(*), coalesce(sum(stored.bytes), 0) INTO sessions, bytes
  FROM parley.sessions AS stored WHERE account = owner AND deleted IS NULL;
END $$;

-- A foreign key needs both of its tables in the same nodes.
ALTER TABLE parley.turn_words DROP CONSTRAINT turn_words_session_id_turn_fkey;
ALTER TABLE parley.messages DROP CONSTRAINT messages_session_id_turn_fkey;
ALTER TABLE parley.turns DROP CONSTRAINT turns_session_id_fkey;

SELECT create_distributed_table('parley.sessions', 'id');
SELECT create_distributed_table('parley.turns', 'session_id', colocate_with => 'parley.sessions');
SELECT create_distributed_table('parley.messages', 'session_id', colocate_with => 'parley.sessions');
SELECT create_distributed_table('parley.turn_words', 'session_id', colocate_with => 'parley.sessions');
SELECT create_distributed_table('parley.claims', 'account', colocate_with => 'none');
SELECT create_distributed_table('parley.cached_answers', 'digest', colocate_with => 'none');

ALTER TABLE parley.turns ADD FOREIGN KEY (session_id) REFERENCES parley.sessions (id) ON DELETE CASCADE;
ALTER TABLE parley.messages ADD FOREIGN KEY (session_id, turn) REFERENCES parley.turns (session_id, number)
  ON DELETE CASCADE;
ALTER TABLE parley.turn_words ADD FOREIGN KEY (session_id, turn) REFERENCES parley.turns (session_id, number)
  ON DELETE CASCADE;
