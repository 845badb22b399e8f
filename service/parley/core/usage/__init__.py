"""What calls use: tokens, cost, limits and receipts."""
