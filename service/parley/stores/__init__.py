"""Databases behind the ports: SQLite."""
