"""Converts failures of upstreams (status, headers, body) to domain errors."""
