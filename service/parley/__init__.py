"""Parley: a chat-completions service over gRPC, with a REST edge, sessions and a built-in model."""
