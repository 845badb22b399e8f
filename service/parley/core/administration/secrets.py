"""The secrets of API keys: `sk-` and 32 random bytes, stored as their SHA-256."""

import hashlib
import secrets

PREFIX = "sk-"


def new_secret() -> str:
    """Returns a new secret."""
    return f"{PREFIX}{secrets.token_urlsafe(32)}"


def new_key_id() -> str:
    """Returns a new id of a key, which is not secret."""
    return f"key_{secrets.token_hex(6)}"


def digest(secret: str) -> bytes:
    """Returns the SHA-256 of a secret."""
    return hashlib.sha256(secret.encode(errors="replace")).digest()
