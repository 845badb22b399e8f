"""Characters that control a terminal, in text of callers, models and upstreams."""

import json
import re

# C0 except tab and line feed, C1; marks, embeddings and isolates of bidirectional text; separators of lines; tags.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_MARK = "�"


def mark_controls(text: str) -> str:
    """Replaces each control character, which keeps the manipulation visible."""
    return text if text.isascii() and text.isprintable() else CONTROLS.sub(_MARK, text)


def escape_controls(text: bytes) -> bytes:
    r"""Writes the control characters of a JSON text as `\uXXXX`; the JSON means the same."""
    if text.isascii():  # JSON itself escapes those below U+0020
        return text.replace(b"\x7f", b"\\u007f")
    return CONTROLS.sub(lambda found: json.dumps(found[0])[1:-1], text.decode()).encode()
