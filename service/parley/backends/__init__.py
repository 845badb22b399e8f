"""Upstreams that answer conversations: each turns the messages into its vendor's JSON and back."""
