"""Ids of sessions, completions and audit events."""

import os
import re
import time

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def uuid7() -> str:
    """Returns a new id of a session or an audit event.

    It is a UUID of version 7, whose first 48 bits are the Unix time in milliseconds (RFC 9562, 5.7).
    """
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def canonical_session_id(text: str) -> str:
    """Returns a session's id as stored, a UUID in lower case (RFC 9562, 4: input is case-insensitive)."""
    return text.lower() if _UUID.fullmatch(text) else text


def completion_id() -> str:
    """Returns a new id of a completion: `chatcmpl-` and 24 hexadecimal digits."""
    return f"chatcmpl-{os.urandom(12).hex()}"
