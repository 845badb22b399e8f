"""The interface of guards."""
