"""The keys of sessions in the store, and the words that a search compares."""

import unicodedata

import apsw
import pytest
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from parley.core.errors import InvalidRequest
from parley.core.session_ids import chosen_key, is_valid, public_id, session_keys
from parley.core.sessions import search
from parley.core.sessions.search import MAX_WORDS, document, folded, query_words
from parley.v1.message_pb2 import Message

_GENERATED = "0199c1b2-7d3e-7a40-9f51-3b8e2c6d4a10"


def test_keys_of_accounts_differ() -> None:
    """The same id of two accounts has two keys, and both have the id."""
    keys = [chosen_key(account, "order/1") for account in ("ada", "bob")]
    assert keys[0] != keys[1]
    assert ["order/1"] * 2 == list(map(public_id, keys))


@pytest.mark.parametrize("session_id", [_GENERATED, "order 1", "~", "~" * 128, chosen_key("ada", "x")])
def test_every_key_has_the_id(session_id: str) -> None:
    """Each key that a session can have is read as its id, also where the id looks like a key."""
    assert {session_id} == set(map(public_id, session_keys("ada", session_id)))


def test_a_generated_id_is_looked_up_first() -> None:
    """An id that Parley generates is the first key, and any other id the second one."""
    assert (0, 1) == tuple(session_keys("ada", one).index(one) for one in (_GENERATED, "order 1"))


def test_an_id_that_looks_like_a_key_reaches_no_other_session() -> None:
    """The key of a session is not an id of that session."""
    assert chosen_key("ada", "x") not in session_keys("ada", chosen_key("ada", "x"))


def test_valid_ids() -> None:
    """An id has 1 to 128 printable ASCII characters, without an outer space."""
    assert all(map(is_valid, ["a", "a b", "~!/?#%", "a" * 128]))
    assert not any(map(is_valid, ["", " ", "a ", " a", "a\n", "é", "a\0", "a" * 129]))


def _document(text: str, account: str = "ada") -> set[str]:
    message = Message(role="user")
    message.content.string_value = text
    return set(document(account, [message]))


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Straße Über", "STRASSE uber"),
        ("naïve café", "naive CAFÉ"),
        ("e\u0301te\u0301", "été"),
        ("ﬁne Ⅷ", "fine viii"),
        ("東京タワー", "東京"),
        ("한국어", "한국"),
        ("snake_case, x-ray; user@example.com", "snake case x ray example"),
        ("x" * 200, "x" * 200),
    ],
)
def test_words_are_folded_alike(text: str, query: str) -> None:
    """A query has the words of a text that differs in case, accents, width and punctuation."""
    assert {word.text for word in query_words("ada", query)} <= _document(text)


def test_words_of_accounts_differ() -> None:
    """No word of an account is one of another account."""
    assert _document("secret").isdisjoint(_document("secret", "bob"))


def test_parts_and_calls_are_indexed() -> None:
    """Texts of parts, refusals and arguments of tools have words; images have none."""
    message = Message(role="assistant", refusal="sorry")
    message.content.list_value.add_struct().update({"type": "text", "text": "hello"})
    message.content.list_value.add_struct().update({"type": "image_url", "image_url": "data:picture"})
    message.tool_calls.add().function.arguments = '{"city": "Paris"}'
    assert {word.text for word in query_words("ada", "sorry hello city paris")} == set(document("ada", [message]))


def test_prefixes_and_limits() -> None:
    """A star makes a prefix; a query has 1 to 64 words, and a repeated word counts once."""
    (word,) = query_words("ada", "Refun*")
    assert (True, True) == (word.is_prefix, word.text.endswith("refun"))
    assert 1 == len(query_words("ada", "word " * (MAX_WORDS + 1)))
    for text in ("", "* ?", " ".join(map(str, range(MAX_WORDS + 1)))):
        with pytest.raises(InvalidRequest, match="`query` must have 1 to 64 words"):
            query_words("ada", text)


def test_a_long_turn_is_indexed_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of a turn have up to 64 KiB and are those of the beginning of its text."""
    words = _document(" ".join(f"word{number:06}" for number in range(4000)))
    assert 60_000 < sum(map(len, words)) <= 64 * 1024
    monkeypatch.setattr(search, "_MAX_TEXT_LENGTH", 10)
    texts = ["a " * 3, "b " * 2 + "c", "d"]
    found = document("ada", [Message(role="user", content=Value(string_value=text)) for text in texts])
    assert {word.text for word in query_words("ada", "a b")} == set(found)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_folding(text: str) -> None:
    """Folding removes what combines, and is the same for a text, its letter cases and its compatible characters."""
    found = folded(text)
    assert not any(map(unicodedata.combining, unicodedata.normalize("NFKD", found)))
    assert {found} == {folded(found), folded(text.casefold()), folded(unicodedata.normalize("NFKD", text))}


def test_the_tokenizer_of_sqlite_keeps_words() -> None:
    """SQLite indexes each word of any letters as it is, as PostgreSQL does."""
    database = apsw.Connection(":memory:")
    database.execute(
        "CREATE VIRTUAL TABLE words USING fts5(text, detail = none, tokenize = 'unicode61 remove_diacritics 0')"
    )
    database.execute("CREATE VIRTUAL TABLE terms USING fts5vocab(words, 'row')")
    characters = [chr(code) for code in (*range(0x3400), *range(0xA000, 0xAC00), *range(0xE000, 0x1F000))]
    for start in range(0, len(characters), 4096):
        found = _document(" ".join(f"a{one}b" for one in characters[start : start + 4096]))
        database.execute("DELETE FROM words")
        database.execute("INSERT INTO words VALUES (?)", (" ".join(found),))
        assert found == {term for (term,) in database.execute("SELECT term FROM terms")}
