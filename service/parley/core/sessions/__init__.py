"""Sessions: turns, history, idempotency keys, the reaper and the store monitor."""
