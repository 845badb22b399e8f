"""Streamed answers: shape, accumulation into completions, and stitching after a failure."""
