"""Errors of upstreams: from status, headers and body to the errors of the core."""
