"""HTTP/1.1 client: connections, requests, server-sent events."""
