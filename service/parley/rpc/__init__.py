"""The gRPC server: services, interceptors, errors, server-sent events."""
