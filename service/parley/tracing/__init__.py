"""Traces with OpenTelemetry: spans of calls, of the store and of attempts. Needs `parley-gateway[otel]`."""
