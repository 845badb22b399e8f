"""Routing: which target answers a call, and what follows a failure."""
