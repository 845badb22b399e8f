-- oldest-worker: 10
-- The title as searches compare it, without differences of letter case, width and accents.
ALTER TABLE parley.sessions ADD COLUMN folded_title text;
UPDATE parley.sessions SET folded_title = lower(title) WHERE title IS NOT NULL;
