"""What the readers of vendors' answers share: lenient JSON, deltas, tool calls, finish reasons."""
