-- oldest-worker: 12
-- The title and the labels of a session.
ALTER TABLE sessions ADD COLUMN title TEXT;
ALTER TABLE sessions ADD COLUMN labels TEXT;          -- JSON object of strings; NULL for none

-- The words of ended turns. A search indexes the turns of its account that are not indexed.
CREATE TABLE indexed_turns (
  id         INTEGER PRIMARY KEY,                     -- the row of `turn_words`
  session_id TEXT NOT NULL,
  turn       INTEGER NOT NULL,
  UNIQUE (session_id, turn),
  FOREIGN KEY (session_id, turn) REFERENCES turns (session_id, number) ON DELETE CASCADE
) STRICT;

CREATE VIRTUAL TABLE turn_words USING fts5(words, detail = none, tokenize = 'unicode61 remove_diacritics 0');

-- The words of a deleted turn are removed from the index at once, not at its next merge.
INSERT INTO turn_words (turn_words, rank) VALUES ('secure-delete', 1);
CREATE TRIGGER turn_words_deleted AFTER DELETE ON indexed_turns BEGIN DELETE FROM turn_words WHERE rowid = OLD.id; END;

-- All ended turns are indexed in those sessions of the account whose latest turn began before `updated`.
CREATE TABLE index_progress (
  account TEXT PRIMARY KEY,
  updated REAL NOT NULL
) STRICT, WITHOUT ROWID;
