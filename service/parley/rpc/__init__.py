"""The gRPC server: the handler of calls, services, errors, server-sent events."""
