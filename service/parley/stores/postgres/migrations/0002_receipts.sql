-- The attempts of a turn: a parley.v1.Receipt. NULL for turns that ended without one.
ALTER TABLE parley.turns ADD COLUMN receipt bytea;
