"""The tests here are of the benchmark's own tools: the kernel's accounting and the upstream process run for real.

The benchmark itself is no test: `make bench` runs it.
"""
