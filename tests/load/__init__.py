"""The load benchmarks: `python -m tests.load`. See README.md here."""
