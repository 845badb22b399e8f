"""Contract tests: one suite for every store and one for every backend.

Stores are real databases on disk. Backends talk to a real HTTP server that follows a script (`tests.upstream`), and
llama.cpp's backend to the embedded model itself.
"""
