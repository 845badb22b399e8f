"""Authentication of callers by API keys."""
