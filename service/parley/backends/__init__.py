"""Backends: clients of upstream chat-completion APIs, which convert requests and responses."""
