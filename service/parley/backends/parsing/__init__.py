"""Parsing shared by the readers of vendors' answers: lenient JSON, deltas, tool calls, finish reasons."""
