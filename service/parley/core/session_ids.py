"""The ids of sessions, as callers and as stores know them.

A session whose id Parley has generated, a UUID of version 7, has that id in the store. One whose id the caller has
chosen has a key in the store that contains a hash of the account and the id: the same id of two accounts is two
sessions. A caller may choose any id, also one that looks generated, so that an id has two possible keys.
"""

import hashlib
import re
from base64 import urlsafe_b64encode

MAX_LENGTH = 128
"""The characters of an id that a caller chooses."""

_GENERATED = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_CHOSEN = re.compile(rf"[!-~](?:[ -~]{{0,{MAX_LENGTH - 2}}}[!-~])?")
_MARK = "~"
_HASH_BYTES = 16
_PREFIX_LENGTH = 24  # the mark, 22 characters of the hash, the mark


def session_keys(account: str, session_id: str) -> tuple[str, ...]:
    """Returns the keys that a session with this id can have in the store, the likeliest first.

    Args:
        account: The account that owns the session.
        session_id: The id that a caller has sent.
    """
    if not is_valid(session_id):
        return (session_id,)  # no session has it
    chosen = chosen_key(account, session_id)
    if is_chosen(session_id):
        return (chosen,)
    return (session_id, chosen) if _GENERATED.fullmatch(session_id) else (chosen, session_id)


def chosen_key(account: str, session_id: str) -> str:
    """Returns the key of a session whose id the caller has chosen."""
    digest = hashlib.sha256(account.encode()).digest()[:_HASH_BYTES]
    return f"{_MARK}{urlsafe_b64encode(digest).decode().rstrip('=')}{_MARK}{session_id}"


def public_id(key: str) -> str:
    """Returns the id of a session as callers know it."""
    return key[_PREFIX_LENGTH:] if key.startswith(_MARK) else key


def is_chosen(key: str) -> bool:
    """Returns whether the key is that of a session whose id the caller has chosen."""
    return key.startswith(_MARK)


def is_valid(session_id: str) -> bool:
    """Returns whether a caller may choose the id: 1 to 128 printable ASCII characters, without an outer space."""
    return _CHOSEN.fullmatch(session_id) is not None
