"""Messages: JSON, ids, unknown fields, and equivalence."""
