"""The words of sessions: what a search indexes, and what it looks for. Pure functions.

Both stores index the same words, so that a search finds the same with each. Every word begins with a hash of its
account: a search reads the index of its own account only.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from google.protobuf.struct_pb2 import Value

from parley.core.errors import InvalidRequest
from parley.v1.message_pb2 import Message

MAX_WORDS = 32
"""The words of a query."""

_HASH_LENGTH = 8
_MAX_WORD_LENGTH = 64  # characters; a longer one is indexed and looked for by its beginning
_MAX_DOCUMENT_BYTES = 512 * 1024  # of the words of a turn: PostgreSQL stores up to 1 MiB
# Languages that write without spaces: each character is a word.
_ALONE = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_QUERY_WORD = re.compile(rf"([{_ALONE}]|[^\W_{_ALONE}]+)(\*?)")


class Word(NamedTuple):
    """A word that a turn must have.

    Attributes:
        text: The word as it is indexed.
        is_prefix: Whether it is the beginning of a word.
    """

    text: str
    is_prefix: bool


def query_words(account: str, text: str) -> list[Word]:
    """Returns the words of a query. Raises InvalidRequest if it has none, or too many."""
    found = [Word(_prefix(account) + word[:_MAX_WORD_LENGTH], bool(star)) for word, star in _matches(text)]
    if not 0 < len(found) <= MAX_WORDS:
        raise InvalidRequest(f"`query` must have 1 to {MAX_WORDS} words of letters or digits", param="query")
    return found


def document(account: str, messages: Iterable[Message]) -> list[str]:
    """Returns the distinct words of a turn's messages, up to 512 KiB."""
    prefix, size = _prefix(account), 0
    found: dict[str, None] = {}
    for message in messages:
        for text in _texts(message):
            for word in _WORD.findall(_folded(text)):
                indexed = prefix + word[:_MAX_WORD_LENGTH]
                if indexed in found:
                    continue
                size += len(indexed.encode())
                if size > _MAX_DOCUMENT_BYTES:
                    return list(found)
                found[indexed] = None
    return list(found)


def _matches(text: str) -> list[tuple[str, str]]:
    return _QUERY_WORD.findall(_folded(text))


def _folded(text: str) -> str:
    """Returns a text without differences of letter case, width and accents."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", "".join(one for one in apart if not unicodedata.combining(one)))


def _prefix(account: str) -> str:
    return hashlib.sha256(account.encode()).hexdigest()[:_HASH_LENGTH]


def _texts(message: Message) -> Iterator[str]:
    yield from _content(message.content)
    yield from (message.name, message.refusal, message.function_call.arguments)
    for call in message.tool_calls:
        yield from (call.function.arguments, call.custom.input)


def _content(content: Value) -> Iterator[str]:
    yield content.string_value
    for part in content.list_value.values:
        fields = part.struct_value.fields
        if "text" in fields:
            yield fields["text"].string_value
