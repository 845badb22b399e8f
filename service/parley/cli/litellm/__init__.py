"""Translates the configuration of LiteLLM's proxy."""
