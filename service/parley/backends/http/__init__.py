"""HTTP/1.1 to an upstream: connections, requests, server-sent events."""
