"""The floor: the least that a chat-completions service on `grpc.aio` behind Parley's edge costs."""
