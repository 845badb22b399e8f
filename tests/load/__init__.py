"""The load benchmarks: `python -m tests.load`. See README.md in this folder."""
