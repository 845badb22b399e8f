"""The contract of titles, labels and searches."""

import threading
from collections.abc import Iterable

import pytest

from parley.core.errors import InvalidRequest, SessionNotFound
from parley.core.ports import SessionFilter, Store
from parley.core.sessions import search
from parley.core.sessions.search import document
from parley.v1.message_pb2 import Message
from tests.contract.stores.making import Clock, begin, complete, converse


async def _found(store: Store, query: str | None = None, account: str = "ada", **labels: str | None) -> list[str]:
    """Indexes what is new and returns the ids that a search finds, in the order of their names."""
    assert await store.index_sessions(account)
    chosen = SessionFilter(query=query, labels=labels)
    found, _ = await store.list_sessions(account, chosen, page_size=100, page_token=None)
    return sorted(session.id for session in found)


class SearchContract:
    """Titles and labels, and searches by them and by words."""

    async def test_title_and_labels(self, store: Store, second: Store) -> None:
        """A title and labels are set, read by other workers, changed alone, and removed."""
        await converse(store, "s", "q", "a", new=True)
        changed = await store.update_session("ada", "s", "Refund", {"team": "blue", "open": "yes"})
        assert changed == await second.get_session("ada", "s")
        assert ("Refund", {"team": "blue", "open": "yes"}) == (changed.title, dict(changed.labels))
        changed = await second.update_session("ada", "s", None, {"team": "red", "open": None})
        assert ("Refund", {"team": "red"}) == (changed.title, dict(changed.labels))
        changed = await second.update_session("ada", "s", "", {"team": None})
        assert (False, {}) == (changed.HasField("title"), dict(changed.labels))

    async def test_other_account(self, store: Store) -> None:
        """Another account changes nothing."""
        await converse(store, "s", "q", "a", new=True)
        with pytest.raises(SessionNotFound):
            await store.update_session("bob", "s", "mine", {})
        assert not (await store.get_session("ada", "s")).title

    async def test_too_many_labels(self, store: Store) -> None:
        """A session has up to 16 labels; a change beyond that is undone as a whole."""
        await converse(store, "s", "q", "a", new=True)
        await store.update_session("ada", "s", None, {f"l{number}": "" for number in range(16)})
        with pytest.raises(InvalidRequest, match="16 labels"):
            await store.update_session("ada", "s", "new", {"one more": ""})
        assert not (await store.get_session("ada", "s")).title

    async def test_search_by_label(self, store: Store) -> None:
        """Sessions are found by all of several labels, with or without a value."""
        for name, labels in {"a": {"team": "blue"}, "b": {"team": "blue", "open": "yes"}, "c": {}}.items():
            await converse(store, name, "q", "a", new=True)
            await store.update_session("ada", name, None, dict(labels))
        assert ["a", "b"] == await _found(store, team="blue")
        assert ["b"] == await _found(store, team="blue", open=None)
        assert [] == await _found(store, team="red")

    async def test_search_by_words(self, store: Store, second: Store) -> None:
        """Questions and answers are found by words, whatever their case, accents and script, and by beginnings."""
        await converse(store, "a", "Wo ist meine RÜCKERSTATTUNG?", "Unterwegs: 4711-B", new=True)
        await converse(store, "b", "東京の天気は", "snake_case", new=True)
        for query in ("rückerstattung", "ruckerstattung", "Unterwegs, WO", "4711", "ruck*"):
            assert ["a"] == await _found(second, query), query
        for query in ("天気", "case", "東京 snake"):
            assert ["b"] == await _found(second, query), query
        for query in ("ruck", "unterwegs case", "nothing"):
            assert [] == await _found(second, query), query

    async def test_words_of_one_turn(self, store: Store) -> None:
        """The words of a query stand in one turn; a later turn is found by the next search."""
        await converse(store, "s", "apple", "pear", new=True)
        assert ["s"] == await _found(store, "apple pear")
        await converse(store, "s", "plum", "fig")
        assert (["s"], []) == (await _found(store, "fig"), await _found(store, "apple fig"))

    async def test_title_is_searched(self, store: Store) -> None:
        """A query finds a session by a part of its title."""
        await converse(store, "s", "q", "a", new=True)
        await store.update_session("ada", "s", "Refund of order", {})
        assert ["s"] == await _found(store, "fund OF")

    async def test_large_turns_do_not_hold_up_other_calls(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """The words of a large turn are found in a thread, whatever the size of the request for the search."""
        threads: list[int] = []

        def recording(account: str, messages: Iterable[Message]) -> list[str]:
            threads.append(threading.get_ident())
            return document(account, messages)

        monkeypatch.setattr(search, "document", recording)
        await converse(store, "s", "apple " * 50_000, "a", new=True)
        assert ["s"] == await _found(store, "apple")
        assert 1 == len(threads)
        assert threading.get_ident() not in threads

    async def test_accounts_are_apart(self, store: Store) -> None:
        """A search finds nothing of other accounts."""
        await converse(store, "s", "secret", "a", new=True)
        await _found(store)
        assert [] == await _found(store, "secret", account="bob")

    async def test_turn_that_ends_long_after_others(self, store: Store, clock: Clock) -> None:
        """A turn that was in progress during a search is found once it has ended, also after later searches."""
        slow = await begin(store, "slow", "waiting", new=True)
        clock.advance(600)
        await converse(store, "s", "q", "a", new=True)
        assert [] == await _found(store, "waiting")
        clock.advance(600)
        await complete(store, slow, "done")
        assert ["slow"] == await _found(store, "waiting done")

    async def test_deleted_sessions_leave_the_index(self, store: Store) -> None:
        """A deleted session is not found, and its id with other words is found by those alone."""
        await converse(store, "s", "apple", "a", new=True)
        assert ["s"] == await _found(store, "apple")
        await store.delete_session("ada", "s")
        assert [] == await _found(store, "apple")
        await converse(store, "s", "pear", "a", new=True)
        assert ([], ["s"]) == (await _found(store, "apple"), await _found(store, "pear"))

    @pytest.mark.parametrize(
        ("text", "queries"),
        [
            (
                'say "never" NEAR(it) -once OR twice*',
                ['"never"', "NEAR(say)", "-once", "say OR twice", "nev* {say}: it"],
            ),
            ("words:apple AND 'pear' ^fig", ["words:apple", "' pear", "^fig", "AND", "apple + fig"]),
            ("昨日、京都で寿司を食べた。𠮷野家", ["京都", "寿司を食べ", "𠮷野"]),
            ("ฉันกินข้าวที่กรุงเทพ", ["กรุงเทพ", "ข้าว"]),
            ("שלום עולם مرحبا بالعالم", ["עולם", "بالعالم"]),
            ("party 🎉 at 8pm 👩‍👩‍👧", ["party 🎉", "🎉 8pm"]),
            (f"x{'long' * 50} end", [f"x{'long' * 50}", f"x{'long' * 15}*", "end"]),
            ("tab\tnew\nline\x1b[31m nul\0byte", ["tab new", "\x1b line", "nul\0byte"]),
            ("a\u19b0b c\u1cf2d", ["a\u19b0b", "c\u1cf2d"]),
        ],
    )
    async def test_hostile_text(self, store: Store, text: str, queries: list[str]) -> None:
        """Words of any script are found; the syntax of databases in texts and queries has no meaning."""
        await converse(store, "s", text, "a", new=True)
        await converse(store, "other", "filler", "b", new=True)
        for query in queries:
            assert ["s"] == await _found(store, query), query
            assert [] == await _found(store, f"{query} absent"), query

    @pytest.mark.parametrize(
        ("text", "found", "others"),
        [
            ("दिन दुनिया", ["दिन", "दुन*", "दुनिया"], ["दान", "दुनी", "द", "न"]),
            ("தமிழ் মেঘ", ["தமிழ்", "মেঘ"], ["தமழ", "মাঘ"]),
            ("𞤀𞤣𞤤𞤢𞤥 ᲀ", ["𞤀𞤣𞤤𞤢𞤥", "𞤀𞤣*"], ["𞤆𞤵𞤤𞤢𞤪", "𞤆*"]),
            ("ok❤️ 1️⃣ a\u0250b", ["ok", "1", "a\u0250b", "a\u0250*"], ["a", "b"]),
        ],
    )
    async def test_marks_and_new_letters(self, store: Store, text: str, found: list[str], others: list[str]) -> None:
        """A vowel that is a mark, or a letter that a database does not know, tells words apart."""
        await converse(store, "s", text, "x", new=True)
        for query in found:
            assert ["s"] == await _found(store, query), query
        for query in others:
            assert [] == await _found(store, query), query

    async def test_title_of_any_script(self, store: Store) -> None:
        """A title is found in any letter case, without accents, and after each change of it; a fork has it, too."""
        await converse(store, "s", "q", "a", new=True)
        await store.update_session("ada", "s", "Привет, Übersicht", {})
        await store.fork_session("ada", "s", "fork", None)
        for query in ("привет", "ÜBERSICHT", "ubersicht", " вет, ü "):
            assert ["fork", "s"] == await _found(store, query), query
        await store.update_session("ada", "s", "100% _ done", {})
        assert (["fork"], ["s"], []) == (
            await _found(store, "Привет"),
            await _found(store, "0% _ d"),
            await _found(store, "1%d"),
        )

    @pytest.mark.parametrize("query", ["", "?!", "🎉", "\0", " ".join(map(str, range(65))), "x" * 1025])
    async def test_invalid_query(self, store: Store, query: str) -> None:
        """A query without words, or with too many, is refused."""
        with pytest.raises(InvalidRequest, match="query"):
            await store.list_sessions("ada", SessionFilter(query=query), page_size=1, page_token=None)
