"""Sessions: turns, history, idempotency, and what keeps the store clean."""
