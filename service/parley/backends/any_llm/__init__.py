"""The providers of the package any-llm-sdk."""
