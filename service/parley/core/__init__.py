"""The core: turns, routing, streams. It works on the generated messages and does not depend on gRPC, HTTP or SQL."""
