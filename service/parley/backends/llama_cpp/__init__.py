"""The embedded model: a llama.cpp server."""
