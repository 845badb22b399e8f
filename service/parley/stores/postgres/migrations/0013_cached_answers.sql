-- oldest-worker: 10
-- The answers that models with a cache keep. Times are Unix seconds of the database's clock.
CREATE TABLE parley.cached_answers (
  digest     bytea NOT NULL PRIMARY KEY,              -- SHA-256 of what decides the answer
  account    text COLLATE "C" NOT NULL,               -- whose call got it
  model      text COLLATE "C" NOT NULL,
  session_id text COLLATE "C",                        -- of that call; NULL: none
  created    float8 NOT NULL,
  expires    float8 NOT NULL,
  size       bigint NOT NULL,                         -- bytes of the answer, and what a row takes
  answer     bytea NOT NULL                           -- a parley.v1.ChatCompletion
);

CREATE INDEX cached_answers_by_owner ON parley.cached_answers (account, model, created) INCLUDE (size);
CREATE INDEX cached_answers_by_session ON parley.cached_answers (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX cached_answers_by_expiry ON parley.cached_answers (expires);

-- In a database that edge/postgres/distribute.sql has distributed, the session may be in another shard.
DO $$
BEGIN
  IF current_setting('parley.distributed', true) = 'on' THEN
    PERFORM create_distributed_table('parley.cached_answers', 'digest', colocate_with => 'none');
  ELSE
    ALTER TABLE parley.cached_answers ADD FOREIGN KEY (session_id) REFERENCES parley.sessions (id) ON DELETE CASCADE;
  END IF;
END $$;
