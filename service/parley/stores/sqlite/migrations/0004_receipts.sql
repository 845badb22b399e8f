-- The attempts of a turn: a parley.v1.Receipt. NULL for turns that ended without one.
ALTER TABLE turns ADD COLUMN receipt BLOB;
