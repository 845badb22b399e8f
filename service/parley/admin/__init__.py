"""Services for administrators."""
