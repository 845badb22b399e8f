"""Parley: a chat-completions service over gRPC, with a REST edge, sessions and a built-in model."""

__version__ = "0.1.0"
"""The version of the distribution. Its metadata has it too, but takes 2 MB to read."""
