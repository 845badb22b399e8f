"""Faults: real workers and databases killed at random moments under writing clients. See README.md in this folder."""
