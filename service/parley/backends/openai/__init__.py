"""OpenAI's chat completions, and any server that speaks them."""
