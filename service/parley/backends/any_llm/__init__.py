"""Providers of the any-llm-sdk package."""
