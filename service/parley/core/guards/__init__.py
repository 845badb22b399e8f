"""Guards: checks of requests before a model, and of answers after it."""
