"""Another Parley, over gRPC."""
