"""Guards: a service over gRPC, and the one in the package."""
