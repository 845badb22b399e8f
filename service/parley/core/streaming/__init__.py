"""Streamed answers: their shape, joining them into whole answers, and joining streams that broke off."""
