"""Tests of the benchmark's tools, with the real accounting of the kernel and a real upstream process.

`make bench` runs the benchmark itself.
"""
