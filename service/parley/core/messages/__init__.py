"""Messages: their JSON, ids, unknown fields, and when two of them mean the same."""
