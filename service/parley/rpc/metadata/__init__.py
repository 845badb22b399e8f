"""Call metadata: rate limits, receipts, idempotency keys."""
