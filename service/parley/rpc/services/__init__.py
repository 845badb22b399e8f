"""The gRPC services: check the request, call the core, answer."""
