-- The title as searches compare it, without differences of letter case, width and accents.
ALTER TABLE sessions ADD COLUMN folded_title TEXT;
UPDATE sessions SET folded_title = lower(title) WHERE title IS NOT NULL;
