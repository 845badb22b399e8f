-- oldest-worker: 10
-- The title as searches compare it, without differences of letter case, width and accents; NULL for titles of before.
ALTER TABLE parley.sessions ADD COLUMN folded_title text;
