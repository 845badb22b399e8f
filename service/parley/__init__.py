"""Parley: a chat-completions service that speaks gRPC, with REST at its edge, sessions, and a model in the package."""
