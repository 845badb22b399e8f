"""The contract of sessions whose ids callers choose."""

import asyncio
from dataclasses import replace

import pytest

from parley.core.errors import SessionBusy, SessionNotFound, SessionOfOtherModel, StorageLimitExceeded
from parley.core.ports import SessionFilter, StorageLimits, Store, Turn, TurnBegin, TurnEnd
from parley.core.session_ids import chosen_key
from tests.contract.stores.making import LEASE, all_messages, complete, message, texts

_ID = "order 4711/2"


def _begin(text: str, account: str = "ada") -> TurnBegin:
    return TurnBegin(account, "m", chosen_key(account, _ID), False, [message("user", text)], may_create=True)


async def _turn(store: Store, text: str, account: str = "ada") -> Turn:
    turn = await store.begin_turn(_begin(text, account), LEASE)
    await complete(store, turn, f"re: {text}")
    return turn


class ChosenIdContract:
    """Sessions that their first use creates."""

    async def test_first_use_creates_and_later_uses_continue(self, store: Store) -> None:
        """The first turn with an id creates the session, the second continues it, and readers see the caller's id."""
        first = await _turn(store, "one")
        second = await store.begin_turn(_begin("two"), LEASE)
        assert (1, 2) == (first.number, second.number)
        assert ["one", "re: one"] == texts(second.history)
        assert _ID == (await store.get_session("ada", first.session_id)).id

    async def test_accounts_have_sessions_of_their_own(self, store: Store) -> None:
        """The same id of two accounts is two sessions, and neither account sees that of the other."""
        await _turn(store, "of ada")
        await _turn(store, "of bob", "bob")
        for account in ("ada", "bob"):
            found, _ = await store.list_sessions(account, SessionFilter(), page_size=9, page_token=None)
            assert [(_ID, 1)] == [(session.id, session.turn_count) for session in found]
            stored = await all_messages(store, chosen_key(account, _ID), account)
            assert [f"of {account}", f"re: of {account}"] == [text for text, *_ in stored]
        with pytest.raises(SessionNotFound, match=_ID):
            await store.get_session("bob", chosen_key("ada", _ID))

    async def test_concurrent_first_uses_create_one_session(self, store: Store, second: Store) -> None:
        """Of calls of several workers that use a new id at once, one begins the turn and the others find it busy."""
        begins = [one.begin_turn(_begin(f"{number}"), LEASE) for number, one in enumerate([store, second] * 3)]
        results = await asyncio.gather(*begins, return_exceptions=True)
        assert 1 == sum(isinstance(result, Turn) for result in results)
        assert 5 == sum(isinstance(result, SessionBusy) for result in results)

    async def test_id_can_be_used_again_after_deletion(self, store: Store) -> None:
        """The id of a deleted session names a new one, which has nothing of the old one."""
        await _turn(store, "old")
        await store.delete_session("ada", chosen_key("ada", _ID))
        turn = await _turn(store, "new")
        assert 1 == turn.number
        assert ["new", "re: new"] == [text for text, *_ in await all_messages(store, turn.session_id)]

    async def test_creation_counts_against_limits(self, store: Store) -> None:
        """A session that is created by its first use counts as one of the account's sessions."""
        await _turn(store, "one")
        other = replace(_begin("two"), session_id=chosen_key("ada", "other"), storage=StorageLimits(sessions=1))
        with pytest.raises(StorageLimitExceeded):
            await store.begin_turn(other, LEASE)
        await store.begin_turn(replace(_begin("two"), storage=StorageLimits(sessions=1)), LEASE)

    async def test_other_model_is_refused(self, store: Store) -> None:
        """An id of a session of another model creates nothing."""
        await _turn(store, "one")
        with pytest.raises(SessionOfOtherModel, match=_ID):
            await store.begin_turn(replace(_begin("two"), model="other"), LEASE)

    async def test_appended_messages_are_all_new(self, store: Store) -> None:
        """A turn that appends repeats messages of the session, where another one recognises them as history."""
        await _turn(store, "one")
        again = replace(_begin("one"), messages=[message("user", "one"), message("assistant", "re: one")], append=True)
        turn = await store.begin_turn(again, LEASE)
        await store.end_turn(turn, TurnEnd("completed"))
        after = await store.begin_turn(_begin("two"), LEASE)
        assert ["one", "re: one", "one", "re: one"] == texts(after.history)
