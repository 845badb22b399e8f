"""The words of sessions: what a search indexes, and what it looks for. Pure functions.

Both stores index the same words, so that a search finds the same with each. Every word begins with a hash of its
account: a search reads the index of its own account only.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from typing import NamedTuple

from google.protobuf.struct_pb2 import Value

from parley.core.errors import InvalidRequest
from parley.v1.message_pb2 import Message

MAX_WORDS = 64
"""The words of a query."""
MAX_QUERY_LENGTH = 1024
"""The characters of a query."""

_HASH_LENGTH = 8
_MAX_WORD_LENGTH = 64  # characters; a longer one is indexed and looked for by its beginning
# Of a turn. SQLite overwrites each word of a deleted turn by itself, in one transaction that other writes wait for.
_MAX_DOCUMENT_BYTES = 64 * 1024
_MAX_TEXT_LENGTH = 2**20
# Each character is a word: Chinese, Japanese, Korean, Thai, Lao, Burmese and Khmer, most of which have no spaces.
_ALONE = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
# SQLite knows the letters of Unicode 6.1, and no marks, so that other characters are written with characters that all
# versions know.
_ESCAPE = "\u0250"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Marks that belong to the letter before them, as the vowels of Hindi; not those of emoji and of variants.
_NO_MARKS = frozenset("\u034f\u180b\u180c\u180d\u180f") | {chr(code) for code in range(0xFE00, 0xFE10)}
_END_MARKS = 0x1E95B  # after the last one


class Word(NamedTuple):
    """A word that a turn must have.

    Attributes:
        text: The word as it is indexed.
        is_prefix: Whether it is the beginning of a word.
    """

    text: str
    is_prefix: bool


class _Writing(dict[int, str]):
    """How the characters of words are written in the index: a table of `str.translate`."""

    def __missing__(self, code: int) -> str:
        old_kind = unicodedata.ucd_3_2_0.category(chr(code))
        self[code] = chr(code) if old_kind[0] in "LN" and chr(code) != _ESCAPE else _ESCAPE + _base_36(code)
        return self[code]


def _base_36(number: int) -> str:
    """Returns four digits."""
    return "".join(_DIGITS[number // 36**place % 36] for place in (3, 2, 1, 0))


_WRITING = _Writing()


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Returns the pattern of words, and that of the words of a query, with their star."""
    characters = map(chr, range(0x300, _END_MARKS))
    marks = "".join(one for one in characters if unicodedata.category(one) in {"Mn", "Mc"} and one not in _NO_MARKS)
    letters = rf"[^\W_{_ALONE}]"
    word = rf"(?=\w)[{_ALONE}]|{letters}+(?:[{marks}]+{letters}*)*"
    return re.compile(word), re.compile(rf"({word})(\*?)")


def query_words(account: str, text: str) -> list[Word]:
    """Returns the words of a query. Raises InvalidRequest if it is too long, or has none or too many."""
    if len(text) > MAX_QUERY_LENGTH:
        raise InvalidRequest(f"`query` may have at most {MAX_QUERY_LENGTH} characters", param="query")
    prefix = _prefix(account)
    found = list(
        dict.fromkeys(Word(prefix + _written(word[:_MAX_WORD_LENGTH]), bool(star)) for word, star in _matches(text))
    )
    if not 0 < len(found) <= MAX_WORDS:
        raise InvalidRequest(f"`query` must have 1 to {MAX_WORDS} words of letters or digits", param="query")
    return found


def title_part(text: str) -> str:
    """Returns the part of a folded title that a query looks for."""
    return folded(text).replace("\0", " ").strip()


def document(account: str, messages: Iterable[Message]) -> list[str]:
    """Returns the distinct words of a turn's messages, up to 64 KiB, of up to 1,048,576 characters of text."""
    prefix, size, rest = _prefix(account), 0, _MAX_TEXT_LENGTH
    words, _ = _patterns()
    found: dict[str, str] = {}
    for text in chain.from_iterable(map(_texts, messages)):
        for match in words.finditer(folded(text[:rest])):
            word = match[0][:_MAX_WORD_LENGTH]
            if word in found:
                continue
            indexed = prefix + _written(word)
            size += len(indexed.encode())
            if size > _MAX_DOCUMENT_BYTES:
                return list(found.values())
            found[word] = indexed
        rest -= len(text)
        if rest <= 0:
            break
    return list(found.values())


def _matches(text: str) -> list[tuple[str, str]]:
    return _patterns()[1].findall(folded(text))


def _written(word: str) -> str:
    """Returns a folded word as it is in the index."""
    return word if word.isascii() else word.translate(_WRITING)


def folded(text: str) -> str:
    """Returns a text without differences of letter case, width and accents."""
    lower = text.casefold()
    if lower.isascii():
        return lower
    # Twice, because some symbols are compatible with capital letters.
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", lower).casefold())
    marks = {ord(one): None for one in set(apart) if unicodedata.combining(one)}
    return unicodedata.normalize("NFC", apart.translate(marks))


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
