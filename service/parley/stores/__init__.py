"""The implementations of the store interface: SQLite and PostgreSQL."""
