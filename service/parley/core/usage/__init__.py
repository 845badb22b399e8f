"""Usage of calls: tokens, cost, rate limits and receipts."""
