"""The drill of many nodes: see `python -m tests.nodes --help` and docs/many-nodes.md."""
