"""What Parley decides: turns, routing, streams. It knows the messages, never gRPC, HTTP or SQL."""
