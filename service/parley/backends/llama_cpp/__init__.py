"""The embedded model, served by llama.cpp."""
