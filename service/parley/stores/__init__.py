"""Databases behind the ports: SQLite, PostgreSQL."""
