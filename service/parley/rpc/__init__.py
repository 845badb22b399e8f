"""The door: gRPC servicers, interceptors, errors and server-sent events."""
