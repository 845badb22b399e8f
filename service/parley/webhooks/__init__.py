"""Webhooks: the receiver of alerts over HTTP."""
