-- oldest-worker: 10
-- The title and the labels of a session.
ALTER TABLE parley.sessions
  ADD COLUMN title  text,
  ADD COLUMN labels text;                              -- JSON object of strings; NULL for none

-- The words of ended turns. A search indexes the turns of its account that are not indexed.
CREATE TABLE parley.turn_words (
  session_id text COLLATE "C" NOT NULL,
  turn       integer NOT NULL,
  words      tsvector NOT NULL,
  PRIMARY KEY (session_id, turn)
);

CREATE INDEX turn_words_by_word ON parley.turn_words USING gin (words);

-- In a database that edge/postgres/distribute.sql has distributed. A foreign key needs both of its tables distributed.
DO $$
BEGIN
  IF current_setting('parley.distributed', true) = 'on' THEN
    PERFORM create_distributed_table('parley.turn_words', 'session_id', colocate_with => 'parley.sessions');
  END IF;
END $$;

ALTER TABLE parley.turn_words ADD FOREIGN KEY (session_id, turn) REFERENCES parley.turns (session_id, number)
  ON DELETE CASCADE;

-- All ended turns are indexed in those sessions of the account whose latest turn began before `updated`.
CREATE TABLE parley.index_progress (
  account text COLLATE "C" PRIMARY KEY,
  updated float8 NOT NULL
);
