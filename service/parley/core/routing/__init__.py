"""Which target answers a call, and what is done when it fails."""
